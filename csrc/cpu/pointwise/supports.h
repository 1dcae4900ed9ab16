// What a pointwise convolution is to its kernels.
#pragma once
#include "../../kernel.h"

namespace dwconv {

// nullptr, or why the shape is none.
inline const char* pointwise_refusal(const Shape& s) {
  if (s.KH != 1 || s.KW != 1) return "the filter is not 1x1";
  const bool same =
      s.stride_h == 1 && s.stride_w == 1 && s.pad_top == 0 && s.pad_left == 0 && s.OH == s.H && s.OW == s.W;
  return same ? nullptr : "results are not at the pixels of the input";
}

}  // namespace dwconv
