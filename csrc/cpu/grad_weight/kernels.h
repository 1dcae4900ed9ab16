// The kernels of grad_weight and the bias gradient, either layout, best first. choice.h says where another one is preferred.
#if defined(DWCONV_CPU_GRAD_WEIGHT_KERNELS_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_GRAD_WEIGHT_KERNELS_H
#undef DWCONV_CPU_GRAD_WEIGHT_KERNELS_H
#else
#define DWCONV_CPU_GRAD_WEIGHT_KERNELS_H
#endif

#include "pixels.h"
#include "pixels3x3.h"
#include "rows.h"
#include "rows3x3.h"

DWCONV_BEGIN_TARGET

static constexpr Kernel kernel_array[] = {
    DWCONV_KERNELS(grad_weight, nchw, rows3x3, GradWeightRows3x3),
    DWCONV_KERNELS(grad_weight, nchw, transposed3x3, NchwGradWeightTransposed3x3),
    DWCONV_KERNELS(grad_weight, nchw, transposed, NchwGradWeightTransposed),
    DWCONV_KERNELS(grad_weight, nchw, rows, GradWeightRows),
    DWCONV_KERNELS(grad_weight, nhwc, pixels3x3, NhwcGradWeightPixels3x3),
    DWCONV_KERNELS(grad_weight, nhwc, pixels, NhwcGradWeightPixels),
};

static constexpr KernelList kernels = {std::begin(kernel_array), std::end(kernel_array)};

DWCONV_END_TARGET

#endif  // DWCONV_CPU_GRAD_WEIGHT_KERNELS_H
