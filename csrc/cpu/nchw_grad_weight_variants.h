// The kernels of grad_weight and the bias gradient, contiguous (NCHW): for_each_target.h includes this inside the namespace of each ISA.
// The includes are in order of dependence, the list is in order of preference.
#include "activate.h"
#include "tile.h"
#include "gather.h"
#include "nchw_grad_weight.h"
#include "channels.h"
#include "nhwc_grad_weight.h"
#include "planes.h"
#include "nchw_grad_weight_blocked.h"

#include "variants.h"

static constexpr Kernel kernels[] = {
    DWCONV_VARIANT(grad_weight, nchw, blocked, NchwGradWeightBlocked),
    DWCONV_VARIANT(grad_weight, nchw, any, NchwGradWeight),
};
