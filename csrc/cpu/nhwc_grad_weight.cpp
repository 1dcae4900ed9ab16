// grad_weight and the bias gradient, channels last (NHWC), for every ISA.
#define DWCONV_FAMILY "nhwc_grad_weight_variants.h"
#define DWCONV_FAMILY_KERNELS nhwc_grad_weight_kernels
#include "for_each_target.h"
