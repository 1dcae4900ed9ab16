// Kernels of BatchNorm and of pointwise convolutions in training, nchw, sound as they stand, and with one fault a kernel,
// as in planted.cpp. Items are channels of BatchNorm, pixels of pointwise results and rows of grad_weight.
#include <cmath>
#include <iterator>
#include <new>

#include "cpu/simd/activation.h"
#include "planted.h"
#include "textbook.h"

namespace dwconv::test {
namespace {

enum class Fault {
  none,
  // Of both.
  adds_to_result,
  depends_on_begin,
  first_image_only,
  forgets_last_pixel,
  reads_after_weight,
  writes_after_result,
  // Of BatchNorm.
  activates_too_early,
  adds_to_grad_weight,
  constant_statistics,
  divides_by_one_less,
  ignores_epsilon,
  next_channel,
  one_pass,
  slope_of_input,
  statistics_of_batch,
  sums_before_activation,
  unscaled_grad_weight,
  wrong_activation,
  // Of pointwise convolutions.
  bias_of_next_output,
  forgets_last_source,
  ignores_bias,
  pixel_of_next_image,
  plans_past_end,
  transposes_weight,
  weighs_next_pixel_with_zero,
};

const char* any_shape(const Shape&) { return nullptr; }

void make_plan(const Shape& s, Plan& plan, int64_t items) {
  new (plan.state) Shape(s);
  plan.workspace_bytes = 0, plan.items[0] = items;
}
void plan_channels(const Shape& s, Plan& plan) { make_plan(s, plan, s.C); }
void plan_pixels(const Shape& s, Plan& plan) { make_plan(s, plan, s.N * s.H * s.W); }
void plan_past_end(const Shape& s, Plan& plan) {
  plan_pixels(s, plan);
  reinterpret_cast<volatile unsigned char*>(&plan)[sizeof(Plan)] = 0;
}
void plan_outputs(const Shape& s, Plan& plan) { make_plan(s, plan, s.M); }

const Shape& shape_of(const Plan& plan) { return *std::launder(reinterpret_cast<const Shape*>(plan.state)); }

const float* numbers(const void* p) { return static_cast<const float*>(p); }
double parameter(const void* p, int64_t index, double otherwise) { return p ? numbers(p)[index] : otherwise; }

// None for none, and for each of the others the next one.
Activation another(Activation activation) {
  return activation == Activation::none ? activation : Activation(int(activation) % int(Activation::gelu_tanh) + 1);
}

template <Fault fault>
void stray_access(const Buffers& b, int64_t weights, int64_t results) {
  if (fault == Fault::reads_after_weight && b.weight) (void)static_cast<const volatile float*>(b.weight)[weights];
  if (fault == Fault::writes_after_result && b.result) static_cast<volatile float*>(b.result)[results] = 0;
}

// A channel of all images.
template <Fault fault>
struct Channel {
  const Shape& s;
  const Buffers& b;
  int64_t c, plane;
  double mean, variance, rstd, scale, bias;

  Channel(const Shape& s, const Buffers& b, int64_t c, bool of_batch) : s(s), b(b), c(c), plane(s.H * s.W) {
    const int64_t of = fault == Fault::next_channel ? (c + 1) % s.C : c;
    if (of_batch) {
      find_statistics();
    } else {
      mean = numbers(b.mean)[of], variance = numbers(b.variance)[of];
    }
    rstd = 1 / std::sqrt(variance + (fault == Fault::ignores_epsilon ? 0 : b.epsilon));
    scale = parameter(b.weight, of, 1) * rstd, bias = parameter(b.bias, of, 0);
  }

  // f of the index of each number, image by image.
  template <class Each>
  void for_each(Each each, bool all = true) const {
    const int64_t images = fault == Fault::first_image_only && !all ? 1 : s.N;
    for (int64_t n = 0; n < images; ++n) {
      for (int64_t i = 0; i < plane - (fault == Fault::forgets_last_pixel && all && plane > 1); ++i) {
        each((n * s.C + c) * plane + i);
      }
    }
  }
  double count() const { return double(s.N * plane); }

  void find_statistics() {
    const float* x = numbers(b.input);
    double sum = 0, squares = 0;
    float plain_sum = 0, plain_squares = 0;
    for_each([&](int64_t i) { sum += x[i], plain_sum += x[i], plain_squares += x[i] * x[i]; }, false);
    mean = sum / (fault == Fault::first_image_only ? double(plane) : count());
    for_each([&](int64_t i) { squares += (x[i] - mean) * (x[i] - mean); }, false);
    variance = squares / (count() - (fault == Fault::divides_by_one_less && count() > 1));
    if (fault == Fault::one_pass) {
      const float plain_mean = plain_sum / float(count());
      variance = std::fmax(plain_squares / float(count()) - plain_mean * plain_mean, 0.0f);
    }
  }
  double argument(int64_t i) const { return (numbers(b.input)[i] - mean) * scale + bias; }
  double gradient(int64_t i) const {
    const double at = fault == Fault::slope_of_input ? numbers(b.input)[i] : argument(i);
    const double slope = textbook_derivative(at, b.activation);
    return slope == 0 ? 0 : numbers(b.grad_output)[i] * slope;
  }
};

template <Fault fault, bool of_batch>
void forward(const Plan& plan, const Buffers& b, int64_t begin, int64_t end) {
  const Shape& s = shape_of(plan);
  auto* result = static_cast<float*>(b.result);
  if (begin < end) stray_access<fault>(b, s.C, s.N * s.C * s.H * s.W);
  const Activation activation = fault == Fault::wrong_activation ? another(b.activation) : b.activation;
  for (int64_t c = begin; c < end; ++c) {
    const Channel<fault> channel(s, b, c, of_batch);
    if (of_batch) static_cast<float*>(b.mean)[c] = float(channel.mean);
    if (of_batch) static_cast<float*>(b.variance)[c] = float(channel.variance);
    channel.for_each([&](int64_t i) {
      auto value = float(activated(channel.argument(i), activation));
      if (fault == Fault::activates_too_early) {
        value = float(activated(channel.argument(i) - channel.bias, activation) + channel.bias);
      }
      if (fault == Fault::depends_on_begin && c == begin) value *= 1.0000001f;
      result[i] = fault == Fault::adds_to_result ? result[i] + value : value;
    });
  }
}

template <Fault fault, bool of_batch>
void backward(const Plan& plan, const Buffers& b, int64_t begin, int64_t end) {
  const Shape& s = shape_of(plan);
  auto* result = static_cast<float*>(b.result);
  auto *grad_weight = static_cast<float*>(b.grad_weight), *grad_bias = static_cast<float*>(b.grad_bias);
  if (begin < end) stray_access<fault>(b, s.C, s.N * s.C * s.H * s.W);
  constexpr bool projects =
      fault == Fault::constant_statistics ? false : fault == Fault::statistics_of_batch || of_batch;
  for (int64_t c = begin; c < end; ++c) {
    const Channel<fault> channel(s, b, c, false);
    double sum = 0, products = 0;
    channel.for_each(
        [&](int64_t i) {
          const double g = fault == Fault::sums_before_activation ? numbers(b.grad_output)[i] : channel.gradient(i);
          sum += g, products += g * (numbers(b.input)[i] - channel.mean);
        },
        false);
    if (grad_bias) grad_bias[c] = float(sum);
    if (grad_weight) {
      const auto value = float(products * (fault == Fault::unscaled_grad_weight ? 1 : channel.rstd));
      grad_weight[c] = fault == Fault::adds_to_grad_weight ? grad_weight[c] + value : value;
    }
    if (!result) continue;
    channel.for_each([&](int64_t i) {
      double value = channel.gradient(i);
      if (projects) {
        const double d = numbers(b.input)[i] - channel.mean;
        value -= sum / channel.count() + d * channel.rstd * channel.rstd * products / channel.count();
      }
      result[i] = float(value * channel.scale);
    });
  }
}

// The output, or the gradient of the input: a pixel's results by its sources.
template <Fault fault, bool is_gradient>
void pixels(const Plan& plan, const Buffers& b, int64_t begin, int64_t end) {
  const Shape& s = shape_of(plan);
  const int64_t plane = s.H * s.W, sources = is_gradient ? s.M : s.C, results = is_gradient ? s.C : s.M;
  const float *source = numbers(is_gradient ? b.grad_output : b.input), *weight = numbers(b.weight);
  auto* result = static_cast<float*>(b.result);
  if (begin < end) stray_access<fault>(b, s.M * s.C, s.N * results * plane);
  for (int64_t item = begin; item < end; ++item) {
    const int64_t n = item / plane, i = item % plane;
    // As where a vector at the end of a plane goes on in the next image.
    const bool strays = fault == Fault::pixel_of_next_image && plane > 1 && i == plane - 1 && n + 1 < s.N;
    const float* from = strays ? source + (n + 1) * sources * plane : source + n * sources * plane + i;
    if (fault == Fault::forgets_last_pixel && plane > 1 && i == plane - 1) continue;
    for (int64_t r = 0; r < results; ++r) {
      const int64_t of = fault == Fault::bias_of_next_output ? (r + 1) % results : r;
      double sum = fault == Fault::ignores_bias || is_gradient ? 0 : parameter(b.bias, of, 0);
      for (int64_t k = 0; k < sources - (fault == Fault::forgets_last_source && sources % 16 == 1); ++k) {
        const bool along = is_gradient != (fault == Fault::transposes_weight);  // sources lie a row of the weight apart
        const int64_t pitch = fault == Fault::transposes_weight ? s.M : s.C;
        const float w = weight[along ? k * pitch + r : r * pitch + k];
        sum += double(from[k * plane]) * w;
        // As where a panel is filled up with what lies behind.
        if (fault == Fault::weighs_next_pixel_with_zero && i + 1 < plane) sum += from[k * plane + 1] * 0.0;
      }
      auto value = float(sum);
      if (fault == Fault::depends_on_begin && item == begin) value *= 1.0000001f;
      float& place = result[(n * results + r) * plane + i];
      place = fault == Fault::adds_to_result ? place + value : value;
    }
  }
}

template <Fault fault>
void grad_weight(const Plan& plan, const Buffers& b, int64_t begin, int64_t end) {
  const Shape& s = shape_of(plan);
  const int64_t plane = s.H * s.W;
  auto* result = static_cast<float*>(b.result);
  if (begin < end) stray_access<fault>(b, 0, s.M * s.C);
  for (int64_t o = begin; o < end; ++o) {
    for (int64_t c = 0; c < s.C; ++c) {
      double sum = 0;
      for (int64_t n = 0; n < (fault == Fault::first_image_only ? 1 : s.N); ++n) {
        for (int64_t i = 0; i < plane - (fault == Fault::forgets_last_pixel); ++i) {
          sum +=
              double(numbers(b.input)[(n * s.C + c) * plane + i]) * numbers(b.grad_output)[(n * s.M + o) * plane + i];
        }
      }
      auto value = float(sum);
      if (fault == Fault::depends_on_begin && o == begin) value *= 1.0000001f;
      float& place = result[fault == Fault::transposes_weight ? c * s.M + o : o * s.C + c];
      place = fault == Fault::adds_to_result ? place + value : value;
    }
  }
}

#define DWCONV_PLANTED(operation, fault, plan, ...)                                                                \
  {                                                                                                                \
    #operation "_" #fault, "planted", Operation::operation, DType::f32, Layout::nchw, Isa::baseline, 1, any_shape, \
        plan, {                                                                                                    \
      __VA_ARGS__                                                                                                  \
    }                                                                                                              \
  }
#define DWCONV_NORM(fault) DWCONV_PLANTED(batch_norm, fault, plan_channels, forward<Fault::fault, true>)
#define DWCONV_NORM_EVAL(fault) DWCONV_PLANTED(batch_norm_eval, fault, plan_channels, forward<Fault::fault, false>)
#define DWCONV_NORM_BACKWARD(fault) \
  DWCONV_PLANTED(batch_norm_backward, fault, plan_channels, backward<Fault::fault, true>)
#define DWCONV_NORM_EVAL_BACKWARD(fault) \
  DWCONV_PLANTED(batch_norm_eval_backward, fault, plan_channels, backward<Fault::fault, false>)
#define DWCONV_POINTWISE(fault) DWCONV_PLANTED(pointwise, fault, plan_pixels, pixels<Fault::fault, false>)
#define DWCONV_POINTWISE_GRAD_INPUT(fault) \
  DWCONV_PLANTED(pointwise_grad_input, fault, plan_pixels, pixels<Fault::fault, true>)
#define DWCONV_POINTWISE_GRAD_WEIGHT(fault) \
  DWCONV_PLANTED(pointwise_grad_weight, fault, plan_outputs, grad_weight<Fault::fault>)

const Kernel kernels[] = {
    DWCONV_NORM(none),
    DWCONV_NORM(depends_on_begin),
    DWCONV_NORM(divides_by_one_less),
    DWCONV_NORM(first_image_only),
    DWCONV_NORM(forgets_last_pixel),
    DWCONV_NORM(ignores_epsilon),
    DWCONV_NORM(one_pass),
    DWCONV_NORM(writes_after_result),
    DWCONV_NORM(wrong_activation),
    DWCONV_NORM_EVAL(none),
    DWCONV_NORM_EVAL(activates_too_early),
    DWCONV_NORM_EVAL(adds_to_result),
    DWCONV_NORM_EVAL(ignores_epsilon),
    DWCONV_NORM_EVAL(next_channel),
    DWCONV_NORM_EVAL(reads_after_weight),
    DWCONV_NORM_BACKWARD(none),
    DWCONV_NORM_BACKWARD(adds_to_grad_weight),
    DWCONV_NORM_BACKWARD(constant_statistics),
    DWCONV_NORM_BACKWARD(first_image_only),
    DWCONV_NORM_BACKWARD(next_channel),
    DWCONV_NORM_BACKWARD(slope_of_input),
    DWCONV_NORM_BACKWARD(sums_before_activation),
    DWCONV_NORM_BACKWARD(unscaled_grad_weight),
    DWCONV_NORM_EVAL_BACKWARD(none),
    DWCONV_NORM_EVAL_BACKWARD(forgets_last_pixel),
    DWCONV_NORM_EVAL_BACKWARD(statistics_of_batch),
    DWCONV_POINTWISE(none),
    DWCONV_POINTWISE(bias_of_next_output),
    DWCONV_POINTWISE(depends_on_begin),
    DWCONV_POINTWISE(forgets_last_pixel),
    DWCONV_POINTWISE(forgets_last_source),
    DWCONV_POINTWISE(ignores_bias),
    DWCONV_POINTWISE(pixel_of_next_image),
    DWCONV_PLANTED(pointwise, plans_past_end, plan_past_end, pixels<Fault::plans_past_end, false>),
    DWCONV_POINTWISE(reads_after_weight),
    DWCONV_POINTWISE(transposes_weight),
    DWCONV_POINTWISE(weighs_next_pixel_with_zero),
    DWCONV_POINTWISE(writes_after_result),
    DWCONV_POINTWISE_GRAD_INPUT(none),
    DWCONV_POINTWISE_GRAD_INPUT(adds_to_result),
    DWCONV_POINTWISE_GRAD_INPUT(forgets_last_source),
    DWCONV_POINTWISE_GRAD_INPUT(transposes_weight),
    DWCONV_POINTWISE_GRAD_WEIGHT(none),
    DWCONV_POINTWISE_GRAD_WEIGHT(adds_to_result),
    DWCONV_POINTWISE_GRAD_WEIGHT(depends_on_begin),
    DWCONV_POINTWISE_GRAD_WEIGHT(first_image_only),
    DWCONV_POINTWISE_GRAD_WEIGHT(forgets_last_pixel),
    DWCONV_POINTWISE_GRAD_WEIGHT(transposes_weight),
};

}  // namespace

KernelList planted_training_kernels() { return {std::begin(kernels), std::end(kernels)}; }

}  // namespace dwconv::test
