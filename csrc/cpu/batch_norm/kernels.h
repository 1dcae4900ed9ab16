// The kernels of BatchNorm with its activation. Both directions are written once, for any walk over the numbers of a
// channel.
#if defined(DWCONV_CPU_BATCH_NORM_KERNELS_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_BATCH_NORM_KERNELS_H
#undef DWCONV_CPU_BATCH_NORM_KERNELS_H
#else
#define DWCONV_CPU_BATCH_NORM_KERNELS_H
#endif

#include "backward.h"
#include "forward.h"
#include "planes.h"
#include "rows.h"

DWCONV_BEGIN_TARGET

template <class T>
using ForwardPlanes = BatchNormForward<T, Planes>;
template <class T>
using ForwardRows = BatchNormForward<T, Rows>;
template <class T>
using BackwardPlanes = BatchNormBackward<T, Planes>;
template <class T>
using BackwardRows = BatchNormBackward<T, Rows>;

static constexpr Kernel kernel_array[] = {
    DWCONV_KERNELS(batch_norm, nchw, planes, ForwardPlanes),
    DWCONV_KERNELS(batch_norm, nhwc, rows, ForwardRows),
    DWCONV_KERNELS(batch_norm_backward, nchw, planes, BackwardPlanes),
    DWCONV_KERNELS(batch_norm_backward, nhwc, rows, BackwardRows),
    DWCONV_KERNELS(batch_norm_eval, nchw, planes, ForwardPlanes),
    DWCONV_KERNELS(batch_norm_eval, nhwc, rows, ForwardRows),
    DWCONV_KERNELS(batch_norm_eval_backward, nchw, planes, BackwardPlanes),
    DWCONV_KERNELS(batch_norm_eval_backward, nhwc, rows, BackwardRows),
};

static constexpr KernelList kernels = {std::begin(kernel_array), std::end(kernel_array)};

DWCONV_END_TARGET

#endif  // DWCONV_CPU_BATCH_NORM_KERNELS_H
