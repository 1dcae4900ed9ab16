#include "nchw_stream_grad_weight.cuh"

#include "variants.h"

namespace dwconv::cuda {
namespace {

template <class T>
using K3S1 = NchwStreamGradWeight<T, 3, 1>;
template <class T>
using K5S1 = NchwStreamGradWeight<T, 5, 1>;
template <class T>
using K7S1 = NchwStreamGradWeight<T, 7, 1>;
template <class T>
using K3S2 = NchwStreamGradWeight<T, 3, 2>;
template <class T>
using K5S2 = NchwStreamGradWeight<T, 5, 2>;
template <class T>
using K7S2 = NchwStreamGradWeight<T, 7, 2>;

constexpr Kernel list[] = {
    DWCONV_CUDA_FLOATS(grad_weight, nchw, k3s1, K3S1), DWCONV_CUDA_FLOATS(grad_weight, nchw, k5s1, K5S1),
    DWCONV_CUDA_FLOATS(grad_weight, nchw, k7s1, K7S1), DWCONV_CUDA_FLOATS(grad_weight, nchw, k3s2, K3S2),
    DWCONV_CUDA_FLOATS(grad_weight, nchw, k5s2, K5S2), DWCONV_CUDA_FLOATS(grad_weight, nchw, k7s2, K7S2),
};

}  // namespace

KernelList nchw_stream_grad_weight_kernels() { return {std::begin(list), std::end(list)}; }

}  // namespace dwconv::cuda
