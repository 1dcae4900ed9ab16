// What the sizes of a problem are held to before a kernel sees them.
#pragma once
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <cstdint>
#include <initializer_list>

#include "../kernel.h"

namespace dwconv {

// Sizes and geometry that no kernel can overflow on: every index and element count below 2^62.
inline void check_geometry(const Shape& s) {
  constexpr int64_t kLimit = int64_t(1) << 62;
  const auto bounded = [](std::initializer_list<int64_t> factors) {
    int64_t product = 1;
    for (int64_t factor : factors) {
      if (__builtin_mul_overflow(product, std::max<int64_t>(factor, 1), &product) || product > kLimit) return false;
    }
    return true;
  };
  for (int64_t size : {s.N, s.C, s.M, s.H, s.W, s.KH, s.KW, s.OH, s.OW}) {
    STD_TORCH_CHECK(size >= 0, "torch_dwconv: sizes must not be negative, got ", size);
  }
  STD_TORCH_CHECK(s.stride_h > 0 && s.stride_w > 0, "torch_dwconv: stride must be positive, got (", s.stride_h, ", ",
                  s.stride_w, ")");
  STD_TORCH_CHECK(s.dilation_h > 0 && s.dilation_w > 0, "torch_dwconv: dilation must be positive, got (", s.dilation_h,
                  ", ", s.dilation_w, ")");
  STD_TORCH_CHECK(s.pad_top >= 0 && s.pad_left >= 0, "torch_dwconv: padding must not be negative, got (", s.pad_top,
                  ", ", s.pad_left, ")");
  STD_TORCH_CHECK(s.KH > 0 && s.KW > 0, "torch_dwconv: the kernel must not be empty, got (", s.KH, ", ", s.KW, ")");
  // 8 bytes an element, and room for the sums of two such products that indices are made of.
  const bool fits = bounded({8, s.N, s.C, s.H, s.W}) && bounded({8, s.N, s.C, s.M, s.OH, s.OW}) &&
                    bounded({8, s.C, s.M, s.KH, s.KW}) && bounded({8, s.OH, s.stride_h}) &&
                    bounded({8, s.OW, s.stride_w}) && bounded({8, s.KH, s.dilation_h, s.stride_h}) &&
                    bounded({8, s.KW, s.dilation_w, s.stride_w}) && bounded({8, s.pad_top}) && bounded({8, s.pad_left});
  STD_TORCH_CHECK(fits, "torch_dwconv: the sizes of this problem overflow 64-bit arithmetic");
}

// The same problem in numbers that bound its work: kernels walk rows and images, and a tensor may have 2^50 rows of no
// columns. Where there are no elements there are no rows, where neither side has any there are no images.
inline Shape without_empty_rows(Shape s) {
  if (s.N * s.C * s.H * s.W == 0) s.H = s.W = 0;
  if (s.N * s.C * s.M * s.OH * s.OW == 0) s.OH = s.OW = 0;
  if (s.H == 0 && s.OH == 0) s.N = 0;
  return s;
}

// Numbers in the result of an operation of the depthwise convolution: of backward, in the one that there always is.
inline int64_t results(Operation operation, const Shape& s) {
  switch (operation) {
    case Operation::forward: return s.N * s.out_channels() * s.OH * s.OW;
    case Operation::grad_input: return s.N * s.C * s.H * s.W;
    default: return s.out_channels() * s.taps();
  }
}

}  // namespace dwconv
