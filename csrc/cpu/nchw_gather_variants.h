// The kernels of forward and grad_input, contiguous (NCHW): for_each_target.h includes this inside the namespace of each ISA.
// The includes are in order of dependence, the list is in order of preference.
#include "activate.h"
#include "tile.h"
#include "gather.h"
#include "nchw_rows.h"
#include "nchw_tiles.h"
#include "nchw_stage.h"
#include "nchw_gather.h"
#if DWCONV_VEC_BYTES == 64
#include "nchw_pairs.h"
#include "nchw_small.h"
#include "nchw_dilated.h"
#include "nchw_stride2_walk.h"
#include "nchw_stride2_forward.h"
#include "nchw_stride2_grad_input.h"
#include "nchw_stride2.h"
#endif
#include "channels.h"
#include "nhwc_long_row.h"
#include "nhwc_tile.h"
#include "nhwc_pack.h"
#include "nhwc_rows.h"
#include "planes.h"
#include "nchw_gather_blocked.h"

#include "variants.h"

static constexpr Kernel kernels[] = {
#if DWCONV_VEC_BYTES == 64
    DWCONV_VARIANT(forward, nchw, stride2, NchwForwardStride2),
    DWCONV_VARIANT(grad_input, nchw, stride2, NchwGradInputStride2),
    DWCONV_VARIANT(forward, nchw, small, NchwForwardSmall),
    DWCONV_VARIANT(grad_input, nchw, small, NchwGradInputSmall),
    DWCONV_VARIANT(forward, nchw, dilated, NchwForwardDilated),
    DWCONV_VARIANT(grad_input, nchw, dilated, NchwGradInputDilated),
#endif
    DWCONV_VARIANT(forward, nchw, blocked, NchwForwardBlocked),
    DWCONV_VARIANT(grad_input, nchw, blocked, NchwGradInputBlocked),
#if DWCONV_VEC_BYTES == 64
    DWCONV_VARIANT(forward, nchw, pairs, NchwForwardPairs),
    DWCONV_VARIANT(grad_input, nchw, pairs, NchwGradInputPairs),
#endif
    DWCONV_VARIANT(forward, nchw, any, NchwForward),
    DWCONV_VARIANT(grad_input, nchw, any, NchwGradInput),
};
