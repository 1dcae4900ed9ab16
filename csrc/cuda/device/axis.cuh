// One dimension of a problem as the generic kernels walk it, whatever stride and dilation are.
//
// Result r reads through tap t the source (r*result_scale + offset + t*tap_scale) / divisor, if that is whole and inside:
//   forward     (r*stride - pad + t*dilation) / 1
//   grad_input  (r + pad - t*dilation) / stride
// Results r, r + result_step, ... share sources: with taps t, t + tap_step, ... they lie on one line of step source_step,
//   source(r + j*result_step, t + i*tap_step) = source(r, t) + (j + i)*source_step     (j - i for grad_input),
// so that a window of registers slides along it and each source is read once.
#pragma once
#include <algorithm>
#include <numeric>

#include "divisor.cuh"

namespace dwconv::cuda {

struct Axis {
  int64_t sources, results, taps;
  int64_t result_scale, offset, tap_scale, divisor;
  int64_t result_step, tap_step, source_step;
  int direction;  // 1: sources ascend with taps; -1: they descend
  Divisor by_divisor, by_result_step, by_tap_step;
};

inline Axis make_axis(bool transposed, int64_t in, int64_t out, int64_t taps, int64_t stride, int64_t dilation,
                      int64_t pad) {
  const int64_t common = std::gcd(stride, dilation), period = stride / common * dilation;
  Axis axis =
      transposed
          ? Axis{out, in, taps, 1, pad, -dilation, stride, period, stride / common, dilation / common, -1, {}, {}, {}}
          : Axis{in, out, taps, stride, -pad, dilation, 1, dilation / common, stride / common, period, 1, {}, {}, {}};
  // Steps beyond the end are alike, and kernels walk what lies between: no more of it than there are numbers.
  axis.result_step = std::min(axis.result_step, std::max<int64_t>(axis.results, 1));
  axis.tap_step = std::min(axis.tap_step, axis.taps);
  axis.by_divisor = Divisor(axis.divisor);
  axis.by_result_step = Divisor(axis.result_step);
  axis.by_tap_step = Divisor(axis.tap_step);
  return axis;
}

inline Axis vertical_axis(bool transposed, const Shape& s) {
  return make_axis(transposed, s.H, s.OH, s.KH, s.stride_h, s.dilation_h, s.pad_top);
}
inline Axis horizontal_axis(bool transposed, const Shape& s) {
  return make_axis(transposed, s.W, s.OW, s.KW, s.stride_w, s.dilation_w, s.pad_left);
}

// The taps of one residue of tap_step, for one result: tap(i) = first_tap + i*tap_step reads source(i) = first_source +
// i*source_step, i < count. In an order in which sources ascend.
struct Taps {
  int64_t first_tap, tap_step, first_source, count;
};

__device__ __forceinline__ Taps taps_from(const Axis& axis, int64_t result, int64_t t) {
  const int64_t numerator = result * axis.result_scale + axis.offset + t * axis.tap_scale;
  const int64_t count = axis.by_tap_step.divide(axis.taps - t + axis.tap_step - 1);
  if (axis.direction > 0) return {t, axis.tap_step, numerator, count};
  const int64_t source = numerator < 0 ? -axis.by_divisor.divide(-numerator) : axis.by_divisor.divide(numerator);
  if (source * axis.divisor != numerator) return {t, axis.tap_step, 0, 0};
  return {t + (count - 1) * axis.tap_step, -axis.tap_step, source - (count - 1) * axis.source_step, count};
}

}  // namespace dwconv::cuda
