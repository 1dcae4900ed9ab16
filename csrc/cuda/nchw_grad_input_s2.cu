#include "nchw_grad_input_s2.cuh"

#include "variants.h"

namespace dwconv::cuda {
namespace {

template <class T>
using K3 = NchwGradInputS2<T, 3>;
template <class T>
using K5 = NchwGradInputS2<T, 5>;
template <class T>
using K7 = NchwGradInputS2<T, 7>;

constexpr Kernel list[] = {
    DWCONV_CUDA_FLOATS(grad_input, nchw, k3s2, K3),
    DWCONV_CUDA_FLOATS(grad_input, nchw, k5s2, K5),
    DWCONV_CUDA_FLOATS(grad_input, nchw, k7s2, K7),
};

}  // namespace

KernelList nchw_grad_input_s2_kernels() { return {std::begin(list), std::end(list)}; }

}  // namespace dwconv::cuda
