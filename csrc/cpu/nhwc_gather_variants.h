// The kernels of forward and grad_input, channels last (NHWC): for_each_target.h includes this inside the namespace of each ISA.
// The includes are in order of dependence, the list is in order of preference.
#include "activate.h"
#include "tile.h"
#include "gather.h"
#include "channels.h"
#include "nhwc_gather.h"
#include "nhwc_long_row.h"
#include "nhwc_tile.h"
#include "nhwc_pack.h"
#include "nhwc_rows.h"
#include "nhwc_tiled.h"

#include "variants.h"

static constexpr Kernel kernels[] = {
    DWCONV_VARIANT(forward, nhwc, tiled, NhwcForwardTiled),
    DWCONV_VARIANT(forward, nhwc, any, NhwcForward),
    DWCONV_VARIANT(grad_input, nhwc, tiled, NhwcGradInputTiled),
    DWCONV_VARIANT(grad_input, nhwc, any, NhwcGradInput),
};
