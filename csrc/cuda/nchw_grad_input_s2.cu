#include "nchw_grad_input_s2.cuh"

#include "variants.h"

namespace dwconv::cuda {
namespace {

constexpr Kernel list[] = {
    DWCONV_CUDA_FLOATS(grad_input, nchw, k3s2, NchwGradInputS2, 3),
    DWCONV_CUDA_FLOATS(grad_input, nchw, k5s2, NchwGradInputS2, 5),
    DWCONV_CUDA_FLOATS(grad_input, nchw, k7s2, NchwGradInputS2, 7),
};

}  // namespace

KernelList nchw_grad_input_s2_kernels() { return {std::begin(list), std::end(list)}; }

}  // namespace dwconv::cuda
