#include "nchw_toeplitz.cuh"

#include "variants.h"

namespace dwconv::cuda {
namespace {

template <class T>
using Forward = NchwToeplitz<T, Map::forward>;
template <class T>
using GradInput = NchwToeplitz<T, Map::grad_input>;

constexpr Kernel list[] = {
    DWCONV_CUDA_KERNEL(forward, nchw, toeplitz, Forward, bf16, bf16),
    DWCONV_CUDA_KERNEL(forward, nchw, toeplitz, Forward, f16, f16),
    DWCONV_CUDA_KERNEL(grad_input, nchw, toeplitz, GradInput, bf16, bf16),
    DWCONV_CUDA_KERNEL(grad_input, nchw, toeplitz, GradInput, f16, f16),
};

}  // namespace

KernelList nchw_toeplitz_kernels() { return {std::begin(list), std::end(list)}; }

}  // namespace dwconv::cuda
