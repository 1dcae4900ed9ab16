// The kernels of this family, best first.
#include "../kernel_list.h"
#include "grad_weight.cuh"
#include "stream.cuh"

namespace dwconv::cuda {
namespace {

constexpr Kernel list[] = {
    DWCONV_CUDA_SIZES(forward, nhwc, stream, 1, NhwcStream, Operation::forward),
    DWCONV_CUDA_SIZES(forward, nhwc, stream, 2, NhwcStream, Operation::forward),
    DWCONV_CUDA_SIZES(grad_input, nhwc, stream, 1, NhwcStream, Operation::grad_input),
    DWCONV_CUDA_SIZES(grad_input, nhwc, stream, 2, NhwcStream, Operation::grad_input),
    DWCONV_CUDA_SIZES(grad_weight, nhwc, stream, 1, NhwcGradWeight),
    DWCONV_CUDA_SIZES(grad_weight, nhwc, stream, 2, NhwcGradWeight),
};

}  // namespace

Family nhwc_family() { return {list_of(list), {}}; }

}  // namespace dwconv::cuda
