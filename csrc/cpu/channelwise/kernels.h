// The kernels of what stands between the convolutions of a block, channels last (NHWC).
#if defined(DWCONV_CPU_CHANNELWISE_KERNELS_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_CHANNELWISE_KERNELS_H
#undef DWCONV_CPU_CHANNELWISE_KERNELS_H
#else
#define DWCONV_CPU_CHANNELWISE_KERNELS_H
#endif

#include "layer_norm.h"
#include "scale.h"
#include "sum.h"

DWCONV_BEGIN_TARGET

static constexpr Kernel kernel_array[] = {
    DWCONV_KERNELS(layer_norm, nhwc, pixels, LayerNorm),
    DWCONV_KERNELS(channel_scale, nhwc, pixels, ChannelScale),
    DWCONV_KERNELS(channel_sum, nhwc, columns, ChannelSum),
};

static constexpr KernelList kernels = {std::begin(kernel_array), std::end(kernel_array)};

DWCONV_END_TARGET

#endif  // DWCONV_CPU_CHANNELWISE_KERNELS_H
