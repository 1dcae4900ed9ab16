// forward and grad_input, channels last (NHWC), for every ISA.
#define DWCONV_FAMILY "nhwc_gather_variants.h"
#define DWCONV_FAMILY_KERNELS nhwc_gather_kernels
#include "for_each_target.h"
