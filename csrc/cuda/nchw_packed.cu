#include "nchw_packed.cuh"

#include "variants.h"

namespace dwconv::cuda {
namespace {

constexpr Kernel list[] = {
    DWCONV_CUDA_SIZES(forward, nchw, packed_, 1, NchwPacked, Operation::forward),
    DWCONV_CUDA_SIZES(forward, nchw, packed_, 2, NchwPacked, Operation::forward),
    DWCONV_CUDA_SIZES(grad_input, nchw, packed_, 1, NchwPacked, Operation::grad_input),
};

}  // namespace

KernelList nchw_packed_kernels() { return {std::begin(list), std::end(list)}; }

}  // namespace dwconv::cuda
