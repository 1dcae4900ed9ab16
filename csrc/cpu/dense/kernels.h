// The kernels of the dense convolution, channels last (NHWC).
#if defined(DWCONV_CPU_DENSE_KERNELS_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_DENSE_KERNELS_H
#undef DWCONV_CPU_DENSE_KERNELS_H
#else
#define DWCONV_CPU_DENSE_KERNELS_H
#endif

#include "amx.h"
#include "panels.h"

DWCONV_BEGIN_TARGET

static constexpr Kernel kernel_array[] = {
#if DWCONV_VEC_BYTES == 64
    DWCONV_KERNEL(dense, nhwc, amx, DenseAmx, bf16, bf16),
    DWCONV_KERNEL(dense, nhwc, pairs, DensePairs, bf16, bf16),
#endif
    DWCONV_KERNELS(dense, nhwc, panels, DensePanels),
};

static constexpr KernelList kernels = {std::begin(kernel_array), std::end(kernel_array)};

DWCONV_END_TARGET

#endif  // DWCONV_CPU_DENSE_KERNELS_H
