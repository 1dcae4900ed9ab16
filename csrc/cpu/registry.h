// Which kernels there are, and which one runs.
#pragma once
#include "../kernel.h"

namespace dwconv {

// What each family contributes for one ISA, best first; an empty list for an ISA of another architecture.
KernelList nchw_kernels(Isa isa);
KernelList nhwc_kernels(Isa isa);
KernelList grad_weight_kernels(Isa isa);
KernelList dense_kernels(Isa isa);
KernelList channelwise_kernels(Isa isa);
KernelList batch_norm_kernels(Isa isa);
KernelList pointwise_kernels(Isa isa);
KernelList sequence_kernels(Isa isa);
KernelList reference_kernels(Isa isa);

// The best ISA that this machine runs, and the one in use: the same unless TORCH_DWCONV_ISA names a lower one.
// The environment is read once, at the first call.
Isa machine_isa();
Isa active_isa();

// Every kernel that may run here, best first: newest ISA first, the reference kernels last.
KernelList active_kernels();

// Why the kernel cannot compute the shape, or nullptr.
const char* refusal(const Kernel& kernel, const Shape& shape);

// "supports, but: " and why another kernel is preferred, where this one could compute the shape as well: a row of a
// family's choice.h. nullptr if none is.
const char* passed_over(const Kernel& kernel, const Shape& shape);

// The first active kernel that can compute the shape and that is not passed over. There always is one, unless taps of
// dense lie outside the input: the reference computes every depthwise convolution, and the kernels of blocks refuse
// nothing else.
const Kernel& select(Operation operation, DType dtype, Layout layout, const Shape& shape);

}  // namespace dwconv
