// The kernels of grad_weight and the bias gradient, channels last (NHWC): for_each_target.h includes this inside the namespace of each ISA.
// The includes are in order of dependence, the list is in order of preference.
#include "activate.h"
#include "tile.h"
#include "gather.h"
#include "channels.h"
#include "nhwc_grad_weight.h"

#include "variants.h"

static constexpr Kernel kernels[] = {
    DWCONV_VARIANT(grad_weight, nhwc, any, NhwcGradWeight),
};
