// grad_weight, either layout: for every ISA.
#include "../registry.h"

#define DWCONV_PER_TARGET "../grad_weight/kernels.h"
#include "../simd/for_each_target.h"

namespace dwconv {

KernelList grad_weight_kernels(Isa isa) { return DWCONV_OF_TARGET(isa, kernels, KernelList{}); }

}  // namespace dwconv
