// The kernels of this family, best first.
#include "../kernel_list.h"
#include "backward.cuh"
#include "grad_input_s2.cuh"
#include "grad_weight.cuh"
#include "stream.cuh"

namespace dwconv::cuda {
namespace {

constexpr Kernel list[] = {
    DWCONV_CUDA_SIZES(forward, nchw, stream, 1, NchwStream, Operation::forward),
    DWCONV_CUDA_SIZES(forward, nchw, stream, 2, NchwStream, Operation::forward),
    DWCONV_CUDA_SIZES(grad_input, nchw, stream, 1, NchwStream, Operation::grad_input),
    DWCONV_CUDA_SIZES(grad_input, nchw, stream, 2, NchwGradInputS2),
    DWCONV_CUDA_SIZES(grad_weight, nchw, stream, 1, NchwGradWeight),
    DWCONV_CUDA_SIZES(grad_weight, nchw, stream, 2, NchwGradWeight),
    DWCONV_CUDA_FLOATS(backward, nchw, stream, "_k3s1", NchwBackward, 3),
    DWCONV_CUDA_FLOATS(backward, nchw, stream, "_k5s1", NchwBackward, 5),
};

}  // namespace

Family nchw_family() { return {list_of(list), {}}; }

}  // namespace dwconv::cuda
