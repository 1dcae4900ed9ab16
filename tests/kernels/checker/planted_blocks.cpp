// Kernels of a block's operations, nhwc, sound as they stand, and with one fault a kernel, as in planted.cpp. Items are
// pixels; those of channel_sum images.
#include <cmath>
#include <iterator>
#include <new>

#include "cpu/simd/activation.h"
#include "planted.h"

namespace dwconv::test {
namespace {

enum class Fault {
  none,
  reads_after_weight,
  reads_after_residual,
  writes_after_result,
  weighs_next_tap_with_zero,
  ignores_bias,
  ignores_residual,
  activates_too_early,
  wrong_activation,
  forgets_last_output,
  mixes_filter_axes,
  depends_on_begin,
  one_pass,
  divides_by_one_less,
  ignores_epsilon,
  mean_of_neighbour,
  scale_of_first_image,
  reads_input_again,
  adds_to_result,
  runs_one_sum,
};

const char* any_shape(const Shape&) { return nullptr; }

template <class Items>
void make_plan(const Shape& s, Plan& plan, Items items) {
  new (plan.state) Shape(s);
  plan.workspace_bytes = 0, plan.items[0] = items;
}
void plan_dense(const Shape& s, Plan& plan) { make_plan(s, plan, s.M > 0 ? s.N * s.OH * s.OW : 0); }
void plan_pixels(const Shape& s, Plan& plan) { make_plan(s, plan, s.N * s.H * s.W); }
void plan_images(const Shape& s, Plan& plan) { make_plan(s, plan, s.N); }

const Shape& shape_of(const Plan& plan) { return *std::launder(reinterpret_cast<const Shape*>(plan.state)); }

const char* taps_inside(const Shape& s) {
  const bool inside = s.pad_top == 0 && s.pad_left == 0 && (s.OH - 1) * s.stride_h + (s.KH - 1) * s.dilation_h < s.H &&
                      (s.OW - 1) * s.stride_w + (s.KW - 1) * s.dilation_w < s.W;
  return inside ? nullptr : "taps lie outside the input";
}

// None for none, and for each of the others the next one.
Activation another(Activation activation) {
  return activation == Activation::none ? activation : Activation(int(activation) % int(Activation::sigmoid) + 1);
}

// The taps of f32 lie one after the other, 16 outputs each.
template <Fault fault>
float dense_sum(const Shape& s, const Buffers& b, int64_t item, int64_t o) {
  const int64_t n = item / s.OW / s.OH, oh = item / s.OW % s.OH, ow = item % s.OW;
  const auto* input = static_cast<const float*>(b.input);
  const float* panel = static_cast<const float*>(b.weight) + o / 16 * s.taps() * s.C * 16 + o % 16;
  float sum = 0;
  for (int64_t kh = 0; kh < s.KH; ++kh) {
    for (int64_t kw = 0; kw < s.KW; ++kw) {
      const int64_t row = n * s.H + oh * s.stride_h + kh * s.dilation_h, column = ow * s.stride_w + kw * s.dilation_w;
      const int64_t first = (row * s.W + column) * s.C;
      const int64_t tap = fault == Fault::mixes_filter_axes ? kw * s.KH + kh : kh * s.KW + kw;
      for (int64_t c = 0; c < s.C; ++c) sum += input[first + c] * panel[(tap * s.C + c) * 16];
      // As where a segment is filled up to a whole vector.
      const bool another_pixel = first + s.C < s.N * s.H * s.W * s.C;
      if (fault == Fault::weighs_next_tap_with_zero && another_pixel) sum += input[first + s.C] * 0.0f;
    }
  }
  return sum;
}

template <Fault fault>
void dense(const Plan& plan, const Buffers& b, int64_t begin, int64_t end) {
  const Shape& s = shape_of(plan);
  const auto* bias = static_cast<const float*>(fault == Fault::ignores_bias ? nullptr : b.bias);
  const auto* residual = static_cast<const float*>(fault == Fault::ignores_residual ? nullptr : b.residual);
  auto* result = static_cast<float*>(b.result);
  const int64_t all = s.N * s.OH * s.OW * s.M, weights = (s.M + 15) / 16 * 16 * s.taps() * s.C;
  if (begin < end && fault == Fault::reads_after_weight) (void)static_cast<const volatile float*>(b.weight)[weights];
  if (begin < end && fault == Fault::reads_after_residual && residual) {
    (void)static_cast<const volatile float*>(b.residual)[all];
  }
  if (begin < end && fault == Fault::writes_after_result) static_cast<volatile float*>(b.result)[all] = 0;
  const Activation activation = fault == Fault::wrong_activation ? another(b.activation) : b.activation;
  for (int64_t item = begin; item < end; ++item) {
    for (int64_t o = 0; o < s.M - (fault == Fault::forgets_last_output && s.M % 16 == 1); ++o) {
      float value = dense_sum<fault>(s, b, item, o) + (bias ? bias[o] : 0);
      if (fault == Fault::activates_too_early) value = float(activated(value, activation));
      if (residual) value += residual[item * s.M + o];
      if (fault == Fault::depends_on_begin && item == begin) value *= 1.0000001f;
      if (fault != Fault::activates_too_early) value = float(activated(value, activation));
      result[item * s.M + o] = value;
    }
  }
}

template <Fault fault>
void layer_norm(const Plan& plan, const Buffers& b, int64_t begin, int64_t end) {
  const Shape& s = shape_of(plan);
  for (int64_t item = begin; item < end; ++item) {
    const float* x = static_cast<const float*>(b.input) + item * s.C;
    const float* of_mean = fault == Fault::mean_of_neighbour && item > 0 ? x - s.C : x;
    auto* result = static_cast<float*>(b.result) + item * s.C;
    double sum = 0, squares = 0;
    float plain_sum = 0, plain_squares = 0;
    for (int64_t c = 0; c < s.C; ++c) sum += of_mean[c], plain_sum += x[c], plain_squares += x[c] * x[c];
    const double mean = sum / double(s.C);
    for (int64_t c = 0; c < s.C; ++c) squares += (x[c] - mean) * (x[c] - mean);
    double variance = squares / double(s.C - (fault == Fault::divides_by_one_less && s.C > 1));
    if (fault == Fault::one_pass) {
      const float plain_mean = plain_sum / float(s.C);
      variance = std::fmax(plain_squares / float(s.C) - plain_mean * plain_mean, 0.0f);
    }
    const double deviation = std::sqrt(variance + (fault == Fault::ignores_epsilon ? 1e-30 : b.epsilon));
    for (int64_t c = 0; c < s.C; ++c) result[c] = float((x[c] - mean) / deviation);
  }
}

template <Fault fault>
void channel_scale(const Plan& plan, const Buffers& b, int64_t begin, int64_t end) {
  const Shape& s = shape_of(plan);
  const auto* input = static_cast<const float*>(b.input);
  auto* result = static_cast<volatile float*>(b.result);
  for (int64_t item = begin; item < end; ++item) {
    const int64_t n = fault == Fault::scale_of_first_image ? 0 : item / s.W / s.H;
    const float* scale = static_cast<const float*>(b.scale) + n * s.C;
    for (int64_t i = item * s.C; i < (item + 1) * s.C; ++i) {
      result[i] = static_cast<const volatile float*>(input)[i] * scale[i - item * s.C];
      // As where the last vector of a pixel begins before its first lane of its own.
      if (fault == Fault::reads_input_again) {
        result[i] = static_cast<const volatile float*>(input)[i] * scale[i - item * s.C];
      }
    }
  }
}

template <Fault fault>
void channel_sum(const Plan& plan, const Buffers& b, int64_t begin, int64_t end) {
  const Shape& s = shape_of(plan);
  for (int64_t n = begin; n < end; ++n) {
    const float* input = static_cast<const float*>(b.input) + n * s.H * s.W * s.C;
    float* result = static_cast<float*>(b.result) + n * s.C;
    for (int64_t c = 0; c < s.C; ++c) {
      double sum = 0;
      float plain = 0;
      for (int64_t pixel = 0; pixel < s.H * s.W; ++pixel)
        sum += input[pixel * s.C + c], plain += input[pixel * s.C + c];
      const float total = fault == Fault::runs_one_sum ? plain : float(sum);
      result[c] = fault == Fault::adds_to_result ? result[c] + total : total;
    }
  }
}

#define DWCONV_PLANTED(operation, fault, supports, plan)                                                          \
  {                                                                                                               \
    #operation "_" #fault, "planted", Operation::operation, DType::f32, Layout::nhwc, Isa::baseline, 1, supports, \
        plan, {                                                                                                   \
      operation<Fault::fault>                                                                                     \
    }                                                                                                             \
  }
#define DWCONV_DENSE(fault) DWCONV_PLANTED(dense, fault, taps_inside, plan_dense)

const Kernel kernels[] = {
    DWCONV_DENSE(none),
    DWCONV_DENSE(reads_after_weight),
    DWCONV_DENSE(reads_after_residual),
    DWCONV_DENSE(writes_after_result),
    DWCONV_DENSE(weighs_next_tap_with_zero),
    DWCONV_DENSE(ignores_bias),
    DWCONV_DENSE(ignores_residual),
    DWCONV_DENSE(activates_too_early),
    DWCONV_DENSE(wrong_activation),
    DWCONV_DENSE(forgets_last_output),
    DWCONV_DENSE(mixes_filter_axes),
    DWCONV_DENSE(depends_on_begin),
    DWCONV_PLANTED(layer_norm, none, any_shape, plan_pixels),
    DWCONV_PLANTED(layer_norm, one_pass, any_shape, plan_pixels),
    DWCONV_PLANTED(layer_norm, divides_by_one_less, any_shape, plan_pixels),
    DWCONV_PLANTED(layer_norm, ignores_epsilon, any_shape, plan_pixels),
    DWCONV_PLANTED(layer_norm, mean_of_neighbour, any_shape, plan_pixels),
    DWCONV_PLANTED(channel_scale, none, any_shape, plan_pixels),
    DWCONV_PLANTED(channel_scale, scale_of_first_image, any_shape, plan_pixels),
    DWCONV_PLANTED(channel_scale, reads_input_again, any_shape, plan_pixels),
    DWCONV_PLANTED(channel_sum, none, any_shape, plan_images),
    DWCONV_PLANTED(channel_sum, adds_to_result, any_shape, plan_images),
    DWCONV_PLANTED(channel_sum, runs_one_sum, any_shape, plan_images),
};

}  // namespace

KernelList planted_block_kernels() { return {std::begin(kernels), std::end(kernels)}; }

}  // namespace dwconv::test
