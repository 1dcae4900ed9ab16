// The activations on one value, in f64: what the reference computes, and what the vectors of activate.h must agree with.
// NaN stays NaN in all of them.
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

}  // namespace dwconv
