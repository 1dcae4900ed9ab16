// forward_nchw_f32, sound as it stands, and with one fault a kernel. Items are the rows of the output.
//
// The faults are those that vectorised kernels really have: a tail read or written one element too far, a border
// multiplied by zero instead of skipped, sums that depend on where a range of items begins.
#include "planted.h"

#include <cmath>
#include <iterator>
#include <new>

#include "cpu/simd/activation.h"

namespace dwconv::test {
namespace {

enum class Fault {
  none,
  reads_after_input,
  reads_before_input,
  reads_after_weight,
  writes_after_result,
  writes_before_result,
  writes_weight,
  reads_bias_always,
  uses_result_unset,
  uses_workspace_unset,
  skips_last_column,
  wraps_rows,
  multiplies_border,
  flushes_subnormals,
  depends_on_begin,
  depends_on_order,
  wrong_activation,
  writes_plan,
  // Right results all the same: only the tools that watch memory, threads and arithmetic can see these.
  reads_margin,
  branches_on_unset,
  races,
  overflows_int,
};

int64_t rows(const Shape& s) { return s.N * s.out_channels() * s.OH; }
void make_plan(const Shape& s, Plan& plan) {
  new (plan.state) Shape(s);
  plan.workspace_bytes = 64, plan.items[0] = rows(s);
}
const char* any_shape(const Shape&) { return nullptr; }

// One sum. A volatile read keeps the compiler from dropping what a fault reads in vain.
template <Fault fault>
float output_at(const Shape& s, const Buffers& b, int64_t n, int64_t oc, int64_t oh, int64_t ow) {
  const float* plane = static_cast<const float*>(b.input) + (n * s.C + oc / s.M) * s.H * s.W;
  const float* weight = static_cast<const float*>(b.weight) + oc * s.taps();
  const bool has_bias = b.bias || fault == Fault::reads_bias_always;
  float sum = has_bias ? static_cast<const volatile float*>(b.bias)[oc] : 0;
  for (int64_t kh = 0; kh < s.KH; ++kh) {
    for (int64_t kw = 0; kw < s.KW; ++kw) {
      const int64_t h = oh * s.stride_h + kh * s.dilation_h - s.pad_top;
      const int64_t w = ow * s.stride_w + kw * s.dilation_w - s.pad_left;
      if (h < 0 || h >= s.H) continue;
      if (w < 0 || w >= s.W) {
        // Inside the plane still: the last pixel of the row above, or the first of the row below.
        const bool in_plane = h > 0 && h + 1 < s.H;
        if (fault == Fault::wraps_rows && in_plane) sum += plane[h * s.W + w] * weight[kh * s.KW + kw];
        if (fault == Fault::multiplies_border && in_plane) sum += plane[h * s.W + w] * 0.0f;
        continue;
      }
      sum += plane[h * s.W + w] * weight[kh * s.KW + kw];
    }
  }
  return sum;
}

template <Fault fault>
void stray_access(const Shape& s, const Buffers& b) {
  const auto* input = static_cast<const volatile float*>(b.input);
  const auto* weight = static_cast<const volatile float*>(b.weight);
  auto* result = static_cast<volatile float*>(b.result);
  if (fault == Fault::reads_after_input) (void)input[s.N * s.C * s.H * s.W];
  if (fault == Fault::reads_before_input) (void)input[-1];
  if (fault == Fault::reads_after_weight) (void)weight[s.out_channels() * s.taps()];
  if (fault == Fault::writes_after_result) result[rows(s) * s.OW] = 0;
  if (fault == Fault::writes_before_result) result[-1] = 0;
  // Between the data and the next page, if there is room: invisible to guard pages.
  if (fault == Fault::reads_margin && uintptr_t(input + s.N * s.C * s.H * s.W) % 4096 != 0) {
    (void)input[s.N * s.C * s.H * s.W];
  }
  if (fault == Fault::branches_on_unset && *static_cast<const volatile float*>(b.workspace) == 3) result[0] = 3;
  if (fault == Fault::races) *static_cast<volatile float*>(b.workspace) = 1;
  volatile int32_t largest = INT32_MAX;
  if (fault == Fault::overflows_int) largest = largest + int32_t(s.KH);
  if (fault == Fault::writes_weight) const_cast<volatile float*>(weight)[0] = weight[0];
}

// None for none, and for each of the others the next one.
Activation another(Activation activation) {
  return activation == Activation::none ? activation : Activation(int(activation) % int(Activation::gelu_tanh) + 1);
}

template <Fault fault>
void forward(const Plan& plan, const Buffers& b, int64_t begin, int64_t end) {
  const Shape& s = *std::launder(reinterpret_cast<const Shape*>(plan.state));
  auto* result = static_cast<float*>(b.result);
  auto* workspace = static_cast<float*>(b.workspace);
  if (begin < end) stray_access<fault>(s, b);
  if (fault == Fault::writes_plan) const_cast<volatile int64_t&>(plan.workspace_bytes) = plan.workspace_bytes;
  for (int64_t item = begin; item < end; ++item) {
    const int64_t oh = item % s.OH, oc = item / s.OH % s.out_channels(), n = item / s.OH / s.out_channels();
    float* row = result + item * s.OW;
    for (int64_t ow = 0; ow < s.OW - (fault == Fault::skips_last_column); ++ow) {
      float value = output_at<fault>(s, b, n, oc, oh, ow);
      if (fault == Fault::uses_result_unset) value += 0 * row[ow];
      if (fault == Fault::uses_workspace_unset) value += 0 * workspace[0];
      if (fault == Fault::flushes_subnormals && !std::isnormal(value)) value = 0;
      // Wrong in the last bit only, as when a vector loop starts at `begin` and its remainder sums in another order.
      if (fault == Fault::depends_on_begin && item == begin) value *= 1.0000001f;
      if (fault == Fault::depends_on_order && item > 0 && row[ow - s.OW] == row[ow - s.OW]) value *= 1.0000001f;
      row[ow] = float(activated(value, fault == Fault::wrong_activation ? another(b.activation) : b.activation));
    }
  }
}

#define DWCONV_PLANTED(fault)                                                                                  \
  {                                                                                                            \
    #fault, "planted", Operation::forward, DType::f32, Layout::nchw, Isa::baseline, 1, any_shape, make_plan, { \
      forward<Fault::fault>                                                                                    \
    }                                                                                                          \
  }

const Kernel kernels[] = {
    DWCONV_PLANTED(none),
    DWCONV_PLANTED(reads_after_input),
    DWCONV_PLANTED(reads_before_input),
    DWCONV_PLANTED(reads_after_weight),
    DWCONV_PLANTED(writes_after_result),
    DWCONV_PLANTED(writes_before_result),
    DWCONV_PLANTED(writes_weight),
    DWCONV_PLANTED(reads_bias_always),
    DWCONV_PLANTED(uses_result_unset),
    DWCONV_PLANTED(uses_workspace_unset),
    DWCONV_PLANTED(skips_last_column),
    DWCONV_PLANTED(wraps_rows),
    DWCONV_PLANTED(multiplies_border),
    DWCONV_PLANTED(flushes_subnormals),
    DWCONV_PLANTED(depends_on_begin),
    DWCONV_PLANTED(depends_on_order),
    DWCONV_PLANTED(wrong_activation),
    DWCONV_PLANTED(writes_plan),
    DWCONV_PLANTED(reads_margin),
    DWCONV_PLANTED(branches_on_unset),
    DWCONV_PLANTED(races),
    DWCONV_PLANTED(overflows_int),
};

}  // namespace

KernelList planted_kernels() { return {std::begin(kernels), std::end(kernels)}; }

}  // namespace dwconv::test
