// The kernels of forward and grad_input, contiguous (NCHW), best first. choice.h says where another one is preferred.
#if defined(DWCONV_CPU_NCHW_KERNELS_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_NCHW_KERNELS_H
#undef DWCONV_CPU_NCHW_KERNELS_H
#else
#define DWCONV_CPU_NCHW_KERNELS_H
#endif

#include "chains.h"
#include "phases.h"
#include "planes.h"
#include "rows.h"
#include "transposed.h"

DWCONV_BEGIN_TARGET

static constexpr Kernel kernel_array[] = {
#if DWCONV_VEC_BYTES >= 32
    DWCONV_KERNELS(forward, nchw, phases, NchwPhasesForward),
    DWCONV_KERNELS(grad_input, nchw, phases, NchwPhasesGradInput),
#endif
#if DWCONV_VEC_BYTES == 64
    DWCONV_KERNELS(forward, nchw, planes, NchwPlanes),
    DWCONV_KERNELS(grad_input, nchw, planes, NchwPlanes),
    DWCONV_KERNELS(forward, nchw, chains, NchwChains),
    DWCONV_KERNELS(grad_input, nchw, chains, NchwChains),
#endif
    DWCONV_KERNELS(forward, nchw, transposed, NchwTransposed),
    DWCONV_KERNELS(grad_input, nchw, transposed, NchwTransposed),
    DWCONV_KERNELS(forward, nchw, rows, NchwRows),
    DWCONV_KERNELS(grad_input, nchw, rows, NchwRows),
};

static constexpr KernelList kernels = {std::begin(kernel_array), std::end(kernel_array)};

DWCONV_END_TARGET

#endif  // DWCONV_CPU_NCHW_KERNELS_H
