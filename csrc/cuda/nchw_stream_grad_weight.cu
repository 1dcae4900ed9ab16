#include "nchw_stream_grad_weight.cuh"

#include "variants.h"

namespace dwconv::cuda {
namespace {

constexpr Kernel list[] = {
    DWCONV_CUDA_SIZES(grad_weight, nchw, , 1, NchwStreamGradWeight),
    DWCONV_CUDA_SIZES(grad_weight, nchw, , 2, NchwStreamGradWeight),
};

}  // namespace

KernelList nchw_stream_grad_weight_kernels() { return {std::begin(list), std::end(list)}; }

}  // namespace dwconv::cuda
