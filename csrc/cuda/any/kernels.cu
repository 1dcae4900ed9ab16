// The kernels of this family, best first.
#include "../kernel_list.h"
#include "gather.cuh"
#include "grad_weight.cuh"

namespace dwconv::cuda {
namespace {

constexpr Kernel list[] = {
    DWCONV_CUDA_DTYPES(forward, nchw, window, "", GatherWindow, Operation::forward, Layout::nchw),
    DWCONV_CUDA_DTYPES(forward, nhwc, window, "", GatherWindow, Operation::forward, Layout::nhwc),
    DWCONV_CUDA_DTYPES(grad_input, nchw, window, "", GatherWindow, Operation::grad_input, Layout::nchw),
    DWCONV_CUDA_DTYPES(grad_input, nhwc, window, "", GatherWindow, Operation::grad_input, Layout::nhwc),
    DWCONV_CUDA_DTYPES(grad_weight, nchw, window, "", GradWeightWindow, Layout::nchw),
    DWCONV_CUDA_DTYPES(grad_weight, nhwc, window, "", GradWeightWindow, Layout::nhwc),
};

}  // namespace

Family any_family() { return {list_of(list), {}}; }

}  // namespace dwconv::cuda
