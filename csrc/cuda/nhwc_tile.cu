#include "nhwc_tile.cuh"

#include "variants.h"

namespace dwconv::cuda {
namespace {

// Body<T> for the lines of the registry.
#define DWCONV_ALIAS(name, K, S, map) \
  template <class T>                  \
  using name = NhwcTile<T, K, S, Map::map>;

DWCONV_ALIAS(ForwardK3S1, 3, 1, forward)
DWCONV_ALIAS(ForwardK5S1, 5, 1, forward)
DWCONV_ALIAS(ForwardK7S1, 7, 1, forward)
DWCONV_ALIAS(ForwardK3S2, 3, 2, forward)
DWCONV_ALIAS(ForwardK5S2, 5, 2, forward)
DWCONV_ALIAS(ForwardK7S2, 7, 2, forward)
DWCONV_ALIAS(GradInputK3S1, 3, 1, grad_input)
DWCONV_ALIAS(GradInputK5S1, 5, 1, grad_input)
DWCONV_ALIAS(GradInputK7S1, 7, 1, grad_input)
DWCONV_ALIAS(GradInputK3S2, 3, 2, grad_input)
DWCONV_ALIAS(GradInputK5S2, 5, 2, grad_input)
DWCONV_ALIAS(GradInputK7S2, 7, 2, grad_input)

constexpr Kernel list[] = {
    DWCONV_CUDA_FLOATS(forward, nhwc, k3s1, ForwardK3S1),
    DWCONV_CUDA_FLOATS(forward, nhwc, k5s1, ForwardK5S1),
    DWCONV_CUDA_FLOATS(forward, nhwc, k7s1, ForwardK7S1),
    DWCONV_CUDA_FLOATS(forward, nhwc, k3s2, ForwardK3S2),
    DWCONV_CUDA_FLOATS(forward, nhwc, k5s2, ForwardK5S2),
    DWCONV_CUDA_FLOATS(forward, nhwc, k7s2, ForwardK7S2),
    DWCONV_CUDA_FLOATS(grad_input, nhwc, k3s1, GradInputK3S1),
    DWCONV_CUDA_FLOATS(grad_input, nhwc, k5s1, GradInputK5S1),
    DWCONV_CUDA_FLOATS(grad_input, nhwc, k7s1, GradInputK7S1),
    DWCONV_CUDA_FLOATS(grad_input, nhwc, k3s2, GradInputK3S2),
    DWCONV_CUDA_FLOATS(grad_input, nhwc, k5s2, GradInputK5S2),
    DWCONV_CUDA_FLOATS(grad_input, nhwc, k7s2, GradInputK7S2),
};

}  // namespace

KernelList nhwc_tile_kernels() { return {std::begin(list), std::end(list)}; }

}  // namespace dwconv::cuda
