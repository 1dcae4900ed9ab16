#include "nhwc_stream.cuh"

#include "variants.h"

namespace dwconv::cuda {
namespace {

constexpr Kernel list[] = {
    DWCONV_CUDA_SIZES(forward, nhwc, , 1, NhwcStream, Operation::forward),
    DWCONV_CUDA_SIZES(forward, nhwc, , 2, NhwcStream, Operation::forward),
    DWCONV_CUDA_SIZES(grad_input, nhwc, , 1, NhwcStream, Operation::grad_input),
    DWCONV_CUDA_SIZES(grad_input, nhwc, , 2, NhwcStream, Operation::grad_input),
};

}  // namespace

KernelList nhwc_stream_kernels() { return {std::begin(list), std::end(list)}; }

}  // namespace dwconv::cuda
