// The kernels of grad_weight and the bias gradient, channels last (NHWC): for_each_target.h includes this inside the
// namespace of each ISA. The includes are in order of dependence, the list is in order of preference.
#include "activate.h"
#include "tile.h"
#include "gather.h"
#include "grad_weight_sums.h"
#include "pixel_taps.h"
#include "channels.h"
#include "planes.h"
#include "pixel_readers.h"
#include "grad_weight_packed.h"
#include "grad_weight_k3.h"

#include "variants.h"

static constexpr Kernel kernels[] = {
    DWCONV_VARIANT(grad_weight, nhwc, k3, NhwcGradWeightK3),
    DWCONV_VARIANT(grad_weight, nhwc, any, NhwcGradWeightPacked),
};
