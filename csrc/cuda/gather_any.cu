#include "gather_any.cuh"

#include "variants.h"

namespace dwconv::cuda {
namespace {

template <class T>
using ForwardNchw = GatherAny<T, Map::forward, Layout::nchw>;
template <class T>
using ForwardNhwc = GatherAny<T, Map::forward, Layout::nhwc>;
template <class T>
using GradInputNchw = GatherAny<T, Map::grad_input, Layout::nchw>;
template <class T>
using GradInputNhwc = GatherAny<T, Map::grad_input, Layout::nhwc>;

constexpr Kernel list[] = {
    DWCONV_CUDA_DTYPES(forward, nchw, any, ForwardNchw),
    DWCONV_CUDA_DTYPES(forward, nhwc, any, ForwardNhwc),
    DWCONV_CUDA_DTYPES(grad_input, nchw, any, GradInputNchw),
    DWCONV_CUDA_DTYPES(grad_input, nhwc, any, GradInputNhwc),
};

}  // namespace

KernelList gather_any_kernels() { return {std::begin(list), std::end(list)}; }

}  // namespace dwconv::cuda
