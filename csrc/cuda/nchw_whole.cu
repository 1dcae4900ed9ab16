#include "nchw_whole.cuh"

#include "variants.h"

namespace dwconv::cuda {
namespace {

constexpr Kernel list[] = {
    DWCONV_CUDA_SIZES(forward, nchw, whole_, 1, NchwWhole, Operation::forward),
    DWCONV_CUDA_SIZES(forward, nchw, whole_, 2, NchwWhole, Operation::forward),
    DWCONV_CUDA_SIZES(grad_input, nchw, whole_, 1, NchwWhole, Operation::grad_input),
};

}  // namespace

KernelList nchw_whole_kernels() { return {std::begin(list), std::end(list)}; }

}  // namespace dwconv::cuda
