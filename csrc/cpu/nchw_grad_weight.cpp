// grad_weight and the bias gradient, contiguous (NCHW), for every ISA.
#define DWCONV_FAMILY "nchw_grad_weight_variants.h"
#define DWCONV_FAMILY_KERNELS nchw_grad_weight_kernels
#include "for_each_target.h"
