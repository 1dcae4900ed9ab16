#include "gather_any.cuh"

#include "variants.h"

namespace dwconv::cuda {
namespace {

constexpr Kernel list[] = {
    DWCONV_CUDA_DTYPES(forward, nchw, any, GatherAny, Operation::forward, Layout::nchw),
    DWCONV_CUDA_DTYPES(forward, nhwc, any, GatherAny, Operation::forward, Layout::nhwc),
    DWCONV_CUDA_DTYPES(grad_input, nchw, any, GatherAny, Operation::grad_input, Layout::nchw),
    DWCONV_CUDA_DTYPES(grad_input, nhwc, any, GatherAny, Operation::grad_input, Layout::nhwc),
};

}  // namespace

KernelList gather_any_kernels() { return {std::begin(list), std::end(list)}; }

}  // namespace dwconv::cuda
