// The kernels of forward and grad_input, channels last (NHWC), best first.
#if defined(DWCONV_CPU_NHWC_KERNELS_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_NHWC_KERNELS_H
#undef DWCONV_CPU_NHWC_KERNELS_H
#else
#define DWCONV_CPU_NHWC_KERNELS_H
#endif

#include "pixels.h"
#include "tiles.h"

DWCONV_BEGIN_TARGET

static constexpr Kernel kernel_array[] = {
    DWCONV_KERNELS(forward, nhwc, tiles, NhwcTiles),
    DWCONV_KERNELS(forward, nhwc, pixels, NhwcPixels),
    DWCONV_KERNELS(grad_input, nhwc, tiles, NhwcTiles),
    DWCONV_KERNELS(grad_input, nhwc, pixels, NhwcPixels),
};

static constexpr KernelList kernels = {std::begin(kernel_array), std::end(kernel_array)};

DWCONV_END_TARGET

#endif  // DWCONV_CPU_NHWC_KERNELS_H
