#include "nchw_large.cuh"

#include "variants.h"

namespace dwconv::cuda {
namespace {

constexpr Kernel list[] = {
    DWCONV_CUDA_FLOATS(forward, nchw, large, NchwLarge, Operation::forward),
    DWCONV_CUDA_FLOATS(grad_input, nchw, large, NchwLarge, Operation::grad_input),
};

}  // namespace

KernelList nchw_large_kernels() { return {std::begin(list), std::end(list)}; }

}  // namespace dwconv::cuda
