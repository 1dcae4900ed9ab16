// layer_norm, channel_scale and channel_sum, channels last (NHWC): for every ISA.
#include "../registry.h"

#define DWCONV_PER_TARGET "../channelwise/kernels.h"
#include "../simd/for_each_target.h"

namespace dwconv {

KernelList channelwise_kernels(Isa isa) { return DWCONV_OF_TARGET(isa, kernels, KernelList{}); }

}  // namespace dwconv
