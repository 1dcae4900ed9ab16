// BatchNorm with its activation, forward and backward, in both layouts: for every ISA.
#include "../registry.h"

#define DWCONV_PER_TARGET "../batch_norm/kernels.h"
#include "../simd/for_each_target.h"

namespace dwconv {

KernelList batch_norm_kernels(Isa isa) { return DWCONV_OF_TARGET(isa, kernels, KernelList{}); }

}  // namespace dwconv
