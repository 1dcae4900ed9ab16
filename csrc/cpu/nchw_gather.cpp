// forward and grad_input, contiguous (NCHW), for every ISA.
#define DWCONV_FAMILY "nchw_gather_variants.h"
#define DWCONV_FAMILY_KERNELS nchw_gather_kernels
#include "for_each_target.h"
