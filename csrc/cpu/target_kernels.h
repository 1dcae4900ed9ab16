// All kernels of a target: included inside its namespace, after its pragma. The order is that of dependence.
#include "vec.h"
#include "tile.h"

#include "gather.h"
#include "nchw_gather.h"
#include "nchw_grad_weight.h"

#include "channels.h"
#include "nhwc_gather.h"
#include "nhwc_grad_weight.h"

#include "planes.h"
#include "nchw_gather_blocked.h"
#include "nchw_grad_weight_blocked.h"

#include "variants.h"
