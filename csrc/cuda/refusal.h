// What tuned kernels refuse alike, and why. Each of them is made for one stride, dilation 1 and multiplier 1, and counts
// elements with 32 bits within a plane or an image.
#pragma once
#include <algorithm>
#include <cstdlib>

#include "kernel.h"

namespace dwconv::cuda {

// nullptr, or why the shape is not of this stride, dilation 1 and multiplier 1.
inline const char* unit_refusal(const Shape& s, int stride) {
  if (s.stride_h != stride || s.stride_w != stride) return "the stride is another";
  if (s.dilation_h != 1 || s.dilation_w != 1) return "the dilation is not 1";
  if (s.M != 1) return "the channel multiplier is not 1";
  return nullptr;
}

// The same, for kernels that are made for K x K besides.
inline const char* unit_refusal(const Shape& s, int K, int stride) {
  if (s.KH != K || s.KW != K) return "the kernel has another size";
  return unit_refusal(s, stride);
}

// nullptr, or why 32 bits do not do: `largest` bounds the padding and the elements of `channels` planes, of the input or
// of what the output spans, each with a margin for the padding that a kernel walks and for what its last tile has beyond.
inline const char* size_refusal(const Shape& s, int stride, int64_t channels, int64_t largest, const char* too_large) {
  constexpr int64_t kMargin = 128;
  const int64_t height = std::max(s.H, s.OH * stride) + kMargin, width = std::max(s.W, s.OW * stride) + kMargin;
  if (channels > largest / width || height > largest / width / std::max<int64_t>(channels, 1)) return too_large;
  if (std::max(std::abs(s.pad_top), std::abs(s.pad_left)) >= largest) return "the padding is too large";
  return nullptr;
}

// For kernels that go plane by plane.
inline const char* plane_refusal(const Shape& s, int stride) {
  return size_refusal(s, stride, 1, int64_t(1) << 29, "a plane is too large for 32-bit offsets");
}

}  // namespace dwconv::cuda
