// The pointwise convolution in training, forward and its two gradients, in both layouts: for every ISA.
#include "../registry.h"

#define DWCONV_PER_TARGET "../pointwise/kernels.h"
#include "../simd/for_each_target.h"

namespace dwconv {

KernelList pointwise_kernels(Isa isa) { return DWCONV_OF_TARGET(isa, kernels, KernelList{}); }

}  // namespace dwconv
