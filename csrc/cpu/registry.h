// Which kernels there are, and which one runs.
#pragma once
#include "../kernel.h"

namespace dwconv {

// What each family contributes for one ISA, best first; an empty list for an ISA of another architecture.
KernelList nchw_gather_kernels(Isa isa);
KernelList nhwc_gather_kernels(Isa isa);
KernelList nchw_grad_weight_kernels(Isa isa);
KernelList nhwc_grad_weight_kernels(Isa isa);
KernelList reference_kernels(Isa isa);

// The best ISA that this machine runs, and the one in use: the same unless TORCH_DWCONV_ISA names a lower one.
// The environment is read once, at the first call.
Isa machine_isa();
Isa active_isa();

// Every kernel that may run here, best first: newest ISA first, the reference kernels last.
KernelList active_kernels();

// The first active kernel that supports the shape; there always is one, since the reference refuses nothing.
const Kernel& select(Operation operation, DType dtype, Layout layout, const Shape& shape);

}  // namespace dwconv
