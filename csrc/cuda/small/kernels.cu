// The kernels of this family, best first.
#include "../kernel_list.h"
#include "choice.h"
#include "planes.cuh"
#include "runs.cuh"

namespace dwconv::cuda {
namespace {

constexpr Kernel list[] = {
    DWCONV_CUDA_SIZES(forward, nchw, planes, 1, NchwPlanes, Operation::forward),
    DWCONV_CUDA_SIZES(forward, nchw, planes, 2, NchwPlanes, Operation::forward),
    DWCONV_CUDA_SIZES(grad_input, nchw, planes, 1, NchwPlanes, Operation::grad_input),
    DWCONV_CUDA_SIZES(forward, nchw, runs, 1, NchwRuns, Operation::forward),
    DWCONV_CUDA_SIZES(forward, nchw, runs, 2, NchwRuns, Operation::forward),
    DWCONV_CUDA_SIZES(grad_input, nchw, runs, 1, NchwRuns, Operation::grad_input),
};

}  // namespace

Family small_family() { return {list_of(list), list_of(small_preferences)}; }

}  // namespace dwconv::cuda
