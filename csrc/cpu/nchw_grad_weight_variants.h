// The kernels of grad_weight and the bias gradient, contiguous (NCHW): for_each_target.h includes this inside the
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
#include "nchw_grad_weight.h"
#include "nchw_grad_weight_k3.h"

#include "variants.h"

static constexpr Kernel kernels[] = {
    DWCONV_VARIANT(grad_weight, nchw, k3, NchwGradWeightK3),
    DWCONV_VARIANT(grad_weight, nchw, small, NchwGradWeightSmall),
    DWCONV_VARIANT(grad_weight, nchw, packed, NchwGradWeightPacked),
    DWCONV_VARIANT(grad_weight, nchw, any, NchwGradWeight),
};
