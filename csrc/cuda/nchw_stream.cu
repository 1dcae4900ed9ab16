#include "nchw_stream.cuh"

#include "variants.h"

namespace dwconv::cuda {
namespace {

constexpr Kernel list[] = {
    DWCONV_CUDA_SIZES(forward, nchw, , 1, NchwStream, Operation::forward),
    DWCONV_CUDA_SIZES(forward, nchw, , 2, NchwStream, Operation::forward),
    DWCONV_CUDA_SIZES(grad_input, nchw, , 1, NchwStream, Operation::grad_input),
};

}  // namespace

KernelList nchw_stream_kernels() { return {std::begin(list), std::end(list)}; }

}  // namespace dwconv::cuda
