// forward and grad_input, contiguous (NCHW): for every ISA.
#include "../registry.h"

#define DWCONV_PER_TARGET "../nchw/kernels.h"
#include "../simd/for_each_target.h"

namespace dwconv {

KernelList nchw_kernels(Isa isa) { return DWCONV_OF_TARGET(isa, kernels, KernelList{}); }

}  // namespace dwconv
