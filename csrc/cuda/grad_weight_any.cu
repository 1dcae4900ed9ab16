#include "grad_weight_any.cuh"

#include "variants.h"

namespace dwconv::cuda {
namespace {

constexpr Kernel list[] = {
    DWCONV_CUDA_DTYPES(grad_weight, nchw, any, GradWeightAny, Layout::nchw),
    DWCONV_CUDA_DTYPES(grad_weight, nhwc, any, GradWeightAny, Layout::nhwc),
};

}  // namespace

KernelList grad_weight_any_kernels() { return {std::begin(list), std::end(list)}; }

}  // namespace dwconv::cuda
