// The activations and their derivatives on one value, in f64: what the reference computes, and what the vectors of
// activate.h and derivative.h must agree with. NaN stays NaN in all activations.
#pragma once
#include <cmath>

#include "../../kernel.h"

namespace dwconv {

static inline double activated(double x, Activation activation) {
  constexpr double kSqrtHalf = 0.70710678118654752440, kSqrtTwoOverPi = 0.79788456080286535588;
  switch (activation) {
    case Activation::none: return x;
    case Activation::relu: return x < 0 ? 0 : x;
    case Activation::relu6: return x < 0 ? 0 : x > 6 ? 6 : x;
    case Activation::hardswish: return x * (x < -3 ? 0 : x > 3 ? 6 : x + 3) / 6;
    case Activation::silu: return x / (1 + std::exp(-x));
    case Activation::gelu: return x * 0.5 * (1 + std::erf(x * kSqrtHalf));
    case Activation::gelu_tanh: return x * 0.5 * (1 + std::tanh(kSqrtTwoOverPi * (x + 0.044715 * x * x * x)));
    case Activation::hardsigmoid: return (x < -3 ? 0 : x > 3 ? 6 : x + 3) / 6;
    case Activation::sigmoid: return 1 / (1 + std::exp(-x));
  }
  return x;
}

// PyTorch's, also where the function has a kink: 0 on it, except for hardswish, which has 1 at 3. Only activations up to
// gelu_tanh are differentiated.
static inline double activation_derivative(double x, Activation activation) {
  constexpr double kSqrtHalf = 0.70710678118654752440, kSqrtTwoOverPi = 0.79788456080286535588;
  constexpr double kDensity = 0.39894228040143267794;  // 1 / sqrt(2 pi)
  switch (activation) {
    case Activation::relu: return x <= 0 ? 0 : 1;
    case Activation::relu6: return x <= 0 || x >= 6 ? 0 : 1;
    case Activation::hardswish: return x <= -3 ? 0 : x >= 3 ? 1 : x / 3 + 0.5;
    case Activation::silu: {
      const double gate = 1 / (1 + std::exp(-x));
      return gate * (1 + x * (1 - gate));
    }
    case Activation::gelu: return 0.5 * (1 + std::erf(x * kSqrtHalf)) + x * kDensity * std::exp(-0.5 * x * x);
    case Activation::gelu_tanh: {
      const double t = std::tanh(kSqrtTwoOverPi * (x + 0.044715 * x * x * x));
      return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * kSqrtTwoOverPi * (1 + 3 * 0.044715 * x * x);
    }
    default: return 1;
  }
}

}  // namespace dwconv
