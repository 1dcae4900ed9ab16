#include "textbook.h"

#include <cmath>

namespace dwconv::test {

int64_t input_size(const Shape& s) { return s.N * s.C * s.H * s.W; }
int64_t weight_size(const Shape& s) { return s.out_channels() * s.taps(); }
int64_t output_size(const Shape& s) { return s.N * s.out_channels() * s.OH * s.OW; }

int64_t result_size(Operation operation, const Shape& s) {
  return operation == Operation::forward       ? output_size(s)
         : operation == Operation::grad_weight ? weight_size(s)
                                               : input_size(s);
}

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

}  // namespace

Sums textbook(Operation operation, const Shape& s, const Operands& operands) {
  const double *x = operands.input.data(), *w = operands.weight.data(), *g = operands.grad_output.data();
  const auto results = size_t(result_size(operation, s));
  Sums sums = {std::vector<double>(results), std::vector<double>(results)};
  double *value = sums.value.data(), *magnitude = sums.magnitude.data();
  const auto add = [&](int64_t i, double term) {
    value[i] += term;
    magnitude[i] += std::fabs(term);
  };
  switch (operation) {
    case Operation::forward: for_each_term(s, [&](int64_t i, int64_t k, int64_t o) { add(o, x[i] * w[k]); }); break;
    case Operation::backward:  // its first result
    case Operation::grad_input: for_each_term(s, [&](int64_t i, int64_t k, int64_t o) { add(i, g[o] * w[k]); }); break;
    case Operation::grad_weight: for_each_term(s, [&](int64_t i, int64_t k, int64_t o) { add(k, x[i] * g[o]); }); break;
  }
  return sums;
}

Sums textbook_grad_bias(const Shape& s, const std::vector<double>& grad_output) {
  Sums sums = {std::vector<double>(size_t(s.out_channels())), std::vector<double>(size_t(s.out_channels()))};
  const int64_t plane = s.OH * s.OW;
  for (size_t i = 0; i < grad_output.size(); ++i) {
    const auto oc = size_t(int64_t(i) / plane % s.out_channels());
    sums.value[oc] += grad_output[i];
    sums.magnitude[oc] += std::fabs(grad_output[i]);
  }
  return sums;
}

void add_bias(const Shape& s, const std::vector<double>& bias, Sums& output) {
  const int64_t plane = s.OH * s.OW;
  for (size_t i = 0; i < output.value.size(); ++i) {
    const auto oc = size_t(int64_t(i) / plane % s.out_channels());
    output.value[i] += bias[oc];
    output.magnitude[i] += std::fabs(bias[oc]);
  }
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
  }
  return x;
}

}  // namespace dwconv::test
