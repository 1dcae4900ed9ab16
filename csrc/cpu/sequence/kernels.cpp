// The kernels of rows and of sequences: for every ISA.
#include "../registry.h"

#define DWCONV_PER_TARGET "../sequence/kernels.h"
#include "../simd/for_each_target.h"

namespace dwconv {

KernelList sequence_kernels(Isa isa) { return DWCONV_OF_TARGET(isa, kernels, KernelList{}); }

}  // namespace dwconv
