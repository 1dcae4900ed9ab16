#include "textbook.h"

#include <algorithm>
#include <cmath>

namespace dwconv::test {

namespace {

// Calls term(index in the input, index in the weight, index in the output) for every term of the trilinear form.
template <class Term>
void for_each_term(const Shape& s, Term term) {
  for (int64_t n = 0; n < s.N; ++n) {
    for (int64_t oc = 0; oc < s.out_channels(); ++oc) {
      for (int64_t kh = 0; kh < s.KH; ++kh) {
        for (int64_t kw = 0; kw < s.KW; ++kw) {
          for (int64_t oh = 0; oh < s.OH; ++oh) {
            const int64_t h = oh * s.stride_h + kh * s.dilation_h - s.pad_top;
            if (h < 0 || h >= s.H) continue;
            const int64_t input_row = ((n * s.C + oc / s.M) * s.H + h) * s.W;
            const int64_t output_row = ((n * s.out_channels() + oc) * s.OH + oh) * s.OW;
            for (int64_t ow = 0; ow < s.OW; ++ow) {
              const int64_t w = ow * s.stride_w + kw * s.dilation_w - s.pad_left;
              if (w < 0 || w >= s.W) continue;
              term(input_row + w, (oc * s.KH + kh) * s.KW + kw, output_row + ow);
            }
          }
        }
      }
    }
  }
}

std::vector<double> depthwise(Answer answer, const Shape& s, const Operands& operands) {
  const double *x = operands.input.data(), *w = operands.weight.data(), *g = operands.grad_output.data();
  std::vector<double> values(size_t(size(answer, s)));
  double* sum = values.data();
  const int64_t plane = s.OH * s.OW;
  const auto channel = [&](size_t i) { return size_t(int64_t(i) / plane % s.out_channels()); };
  switch (answer) {
    case Answer::output_with_bias:
      for (size_t i = 0; i < values.size(); ++i) values[i] = operands.bias[channel(i)];
      [[fallthrough]];
    case Answer::output: for_each_term(s, [&](int64_t i, int64_t k, int64_t o) { sum[o] += x[i] * w[k]; }); break;
    case Answer::grad_input: for_each_term(s, [&](int64_t i, int64_t k, int64_t o) { sum[i] += g[o] * w[k]; }); break;
    case Answer::grad_weight: for_each_term(s, [&](int64_t i, int64_t k, int64_t o) { sum[k] += x[i] * g[o]; }); break;
    default:
      for (size_t i = 0; i < operands.grad_output.size(); ++i) values[channel(i)] += g[i];
  }
  return values;
}

// Every tap is inside.
std::vector<double> dense(Answer answer, const Shape& s, const Operands& operands) {
  const bool bias = answer == Answer::dense_with_bias || answer == Answer::dense_with_both;
  const bool residual = answer == Answer::dense_with_residual || answer == Answer::dense_with_both;
  std::vector<double> values(size_t(size(answer, s)));
  size_t place = 0;
  for (int64_t n = 0; n < s.N; ++n) {
    for (int64_t o = 0; o < s.M; ++o) {
      for (int64_t pixel = 0; pixel < s.OH * s.OW; ++pixel, ++place) {
        const int64_t top = pixel / s.OW * s.stride_h, left = pixel % s.OW * s.stride_w;
        double sum = (bias ? operands.bias[size_t(o)] : 0) + (residual ? operands.residual[place] : 0);
        const double* w = operands.weight.data() + o * s.C * s.taps();
        for (int64_t c = 0; c < s.C; ++c) {
          for (int64_t kh = 0; kh < s.KH; ++kh) {
            const double* row = operands.input.data() + ((n * s.C + c) * s.H + top + kh * s.dilation_h) * s.W + left;
            for (int64_t kw = 0; kw < s.KW; ++kw) sum += row[kw * s.dilation_w] * *w++;
          }
        }
        values[place] = sum;
      }
    }
  }
  return values;
}

std::vector<double> pointwise(Answer answer, const Shape& s, const Operands& operands) {
  const double *x = operands.input.data(), *w = operands.weight.data(), *g = operands.grad_output.data();
  std::vector<double> values(size_t(size(answer, s)));
  double* sum = values.data();
  const int64_t plane = s.H * s.W;
  for (int64_t n = 0; n < s.N; ++n) {
    for (int64_t o = 0; o < s.M; ++o) {
      const int64_t out = (n * s.M + o) * plane;
      if (answer == Answer::pointwise_output_with_bias) std::fill_n(sum + out, plane, operands.bias[size_t(o)]);
      for (int64_t c = 0; c < s.C; ++c) {
        const int64_t in = (n * s.C + c) * plane, k = o * s.C + c;
        for (int64_t i = 0; i < plane; ++i) {
          if (answer == Answer::pointwise_grad_input) {
            sum[in + i] += g[out + i] * w[k];
          } else if (answer == Answer::pointwise_grad_weight) {
            sum[k] += x[in + i] * g[out + i];
          } else {
            sum[out + i] += x[in + i] * w[k];
          }
        }
      }
    }
  }
  return values;
}

// layer_norm of the numbers at x, x + pitch, ...: what is left of the mean after it is rounded is taken off once more.
void normalise(const double* x, double* result, int64_t count, int64_t pitch, double epsilon) {
  std::vector<double> deviations(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) deviations[size_t(i)] = x[i * pitch];
  double squares = 0;
  for (int round = 0; round < 2; ++round) {
    double sum = 0;
    for (const double value : deviations) sum += value;
    for (double& value : deviations) value -= sum / double(count);
  }
  for (const double value : deviations) squares += value * value;
  const double deviation = std::sqrt(squares / double(count) + epsilon);
  for (int64_t i = 0; i < count; ++i) result[i * pitch] = deviations[size_t(i)] / deviation;
}

std::vector<double> channelwise(Answer answer, const Shape& s, const Operands& operands) {
  const std::vector<double>& x = operands.input;
  std::vector<double> values(size_t(size(answer, s)));
  const int64_t plane = s.H * s.W;
  if (answer == Answer::layer_norm) {
    for (int64_t i = 0; i < s.N * plane; ++i) {
      const int64_t first = i / plane * s.C * plane + i % plane;
      normalise(x.data() + first, values.data() + first, s.C, plane, operands.epsilon);
    }
  } else {
    for (size_t i = 0; i < x.size(); ++i) {
      const size_t channel = i / size_t(plane);
      if (answer == Answer::channel_scale) values[i] = x[i] * operands.scale[channel];
      if (answer == Answer::channel_sum) values[channel] += x[i];
    }
  }
  return values;
}

}  // namespace

std::vector<double> textbook(Answer answer, const Shape& s, const Operands& operands) {
  switch (kind_of(answer)) {
    case Kind::depthwise: return depthwise(answer, s, operands);
    case Kind::dense: return dense(answer, s, operands);
    case Kind::channelwise: return channelwise(answer, s, operands);
    case Kind::batch_norm: return batch_norm(answer, s, operands);
    case Kind::pointwise: return pointwise(answer, s, operands);
    case Kind::sequence: return sequence(answer, s, operands);
  }
  return {};
}

double textbook_activation(double x, Activation activation) {
  // x times the part of a sigmoid at z that it lets through.
  const auto gated = [x](double z) { return z < 0 ? x * (std::exp(z) / (1 + std::exp(z))) : x / (1 + std::exp(-z)); };
  switch (activation) {
    case Activation::none: return x;
    case Activation::relu: return std::isnan(x) ? x : std::fmax(x, 0);
    case Activation::relu6: return std::isnan(x) ? x : std::fmin(std::fmax(x, 0), 6);
    case Activation::hardswish: return x * textbook_activation(x + 3, Activation::relu6) / 6;
    case Activation::silu: return gated(x);
    case Activation::gelu: return x * (std::erfc(-x / std::sqrt(2.0)) / 2);
    case Activation::gelu_tanh: return gated(2 * std::sqrt(2 / std::acos(-1.0)) * (x + 0.044715 * x * x * x));
    case Activation::hardsigmoid: return textbook_activation(x + 3, Activation::relu6) / 6;
    case Activation::sigmoid: return x < 0 ? std::exp(x) / (1 + std::exp(x)) : 1 / (1 + std::exp(-x));
  }
  return x;
}

}  // namespace dwconv::test
