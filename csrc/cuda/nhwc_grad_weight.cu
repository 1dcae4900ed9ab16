#include "nhwc_grad_weight.cuh"

#include "variants.h"

namespace dwconv::cuda {
namespace {

constexpr Kernel list[] = {
    DWCONV_CUDA_SIZES(grad_weight, nhwc, , 1, NhwcGradWeight),
    DWCONV_CUDA_SIZES(grad_weight, nhwc, , 2, NhwcGradWeight),
};

}  // namespace

KernelList nhwc_grad_weight_kernels() { return {std::begin(list), std::end(list)}; }

}  // namespace dwconv::cuda
