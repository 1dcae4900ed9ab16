#include "nchw_large.cuh"

#include "variants.h"

namespace dwconv::cuda {
namespace {

template <class T>
using Forward = NchwLarge<T, Map::forward>;
template <class T>
using GradInput = NchwLarge<T, Map::grad_input>;

constexpr Kernel list[] = {
    DWCONV_CUDA_FLOATS(forward, nchw, large, Forward),
    DWCONV_CUDA_FLOATS(grad_input, nchw, large, GradInput),
};

}  // namespace

KernelList nchw_large_kernels() { return {std::begin(list), std::end(list)}; }

}  // namespace dwconv::cuda
