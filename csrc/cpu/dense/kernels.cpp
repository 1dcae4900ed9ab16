// The dense convolution, channels last (NHWC): for every ISA.
#include "../registry.h"

#define DWCONV_PER_TARGET "../dense/kernels.h"
#include "../simd/for_each_target.h"

namespace dwconv {

KernelList dense_kernels(Isa isa) { return DWCONV_OF_TARGET(isa, kernels, KernelList{}); }

}  // namespace dwconv
