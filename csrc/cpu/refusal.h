// Whether a kernel takes a shape, for those that choose one.
#pragma once
#include "registry.h"

namespace dwconv {

// Vectorised kernels go through the residues of a stride, the interleaved rows of a dilation and the width of a border
// one by one. Beyond these limits no layer is known, and such a walk would take hours for a handful of numbers: the
// reference kernels, whose work depends on the sizes of operands alone, have those shapes.
constexpr int64_t kLargestStride = 64, kLargestDilation = 1 << 16, kLargestPadding = 1 << 24;

// nullptr, or why the kernel does not take the shape.
inline const char* refusal(const Kernel& kernel, const Shape& s) {
  if (kernel.supports != reference_kernels(Isa::baseline).begin()->supports) {
    if (s.stride_h > kLargestStride || s.stride_w > kLargestStride) return "the stride is beyond 64";
    if (s.dilation_h > kLargestDilation || s.dilation_w > kLargestDilation) return "the dilation is beyond 65536";
    if (s.pad_top > kLargestPadding || s.pad_left > kLargestPadding) return "the padding is beyond 16777216";
  }
  return kernel.supports(s);
}

}  // namespace dwconv
