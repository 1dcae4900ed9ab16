#include "grad_weight_any.cuh"

#include "variants.h"

namespace dwconv::cuda {
namespace {

template <class T>
using Nchw = GradWeightAny<T, Layout::nchw>;
template <class T>
using Nhwc = GradWeightAny<T, Layout::nhwc>;

constexpr Kernel list[] = {
    DWCONV_CUDA_DTYPES(grad_weight, nchw, any, Nchw),
    DWCONV_CUDA_DTYPES(grad_weight, nhwc, any, Nhwc),
};

}  // namespace

KernelList grad_weight_any_kernels() { return {std::begin(list), std::end(list)}; }

}  // namespace dwconv::cuda
