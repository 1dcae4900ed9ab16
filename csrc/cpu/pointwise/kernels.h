// The kernels of the pointwise convolution in training, of the dtypes whose tensors the tiles read as they are.
#if defined(DWCONV_CPU_POINTWISE_KERNELS_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_POINTWISE_KERNELS_H
#undef DWCONV_CPU_POINTWISE_KERNELS_H
#else
#define DWCONV_CPU_POINTWISE_KERNELS_H
#endif

#include "grad_weight.h"
#include "pixels.h"
#include "planes.h"

DWCONV_BEGIN_TARGET

template <class T>
using GradWeightPlanes = PointwiseGradWeight<T, false>;
template <class T>
using GradWeightPixels = PointwiseGradWeight<T, true>;

static constexpr Kernel kernel_array[] = {
    DWCONV_KERNEL(pointwise, nchw, planes, PointwisePlanes, f32, float),
    DWCONV_KERNEL(pointwise, nhwc, pixels, PointwisePixels, f32, float),
    DWCONV_KERNEL(pointwise_grad_input, nchw, planes, PointwisePlanes, f32, float),
    DWCONV_KERNEL(pointwise_grad_input, nhwc, pixels, PointwisePixels, f32, float),
    DWCONV_KERNEL(pointwise_grad_weight, nchw, planes, GradWeightPlanes, f32, float),
    DWCONV_KERNEL(pointwise_grad_weight, nhwc, pixels, GradWeightPixels, f32, float),
};

static constexpr KernelList kernels = {std::begin(kernel_array), std::end(kernel_array)};

DWCONV_END_TARGET

#endif  // DWCONV_CPU_POINTWISE_KERNELS_H
