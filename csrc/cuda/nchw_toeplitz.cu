#include "nchw_toeplitz.cuh"

#include "variants.h"

namespace dwconv::cuda {
namespace {

constexpr Kernel list[] = {
    DWCONV_CUDA_KERNEL(forward, nchw, toeplitz, bf16, bf16, NchwToeplitz, Operation::forward),
    DWCONV_CUDA_KERNEL(forward, nchw, toeplitz, f16, f16, NchwToeplitz, Operation::forward),
    DWCONV_CUDA_KERNEL(grad_input, nchw, toeplitz, bf16, bf16, NchwToeplitz, Operation::grad_input),
    DWCONV_CUDA_KERNEL(grad_input, nchw, toeplitz, f16, f16, NchwToeplitz, Operation::grad_input),
};

}  // namespace

KernelList nchw_toeplitz_kernels() { return {std::begin(list), std::end(list)}; }

}  // namespace dwconv::cuda
