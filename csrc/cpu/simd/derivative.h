// Gradients through the activations, from the number that the activation was applied to. f32 is computed in vectors
// throughout; f64 takes silu and both gelu lane by lane from activation.h.
#if defined(DWCONV_CPU_SIMD_DERIVATIVE_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_SIMD_DERIVATIVE_H
#undef DWCONV_CPU_SIMD_DERIVATIVE_H
#else
#define DWCONV_CPU_SIMD_DERIVATIVE_H
#endif

#include "activate.h"

DWCONV_BEGIN_TARGET

DWCONV_INLINE Vec<float> derivative_in_vectors(Vec<float> x, Activation activation) {
  if (activation == Activation::silu) {
    const Vec<float> gate = sigmoid(x);
    return gate * (1.0f + x * (1.0f - gate));
  }
  if (activation == Activation::gelu) {
    const Vec<float> tail = normal_tail(x), density = 0.398942280f * exponential(x * x * -0.5f);
    return (x < 0 ? tail : 1.0f - tail) + x * density;
  }
  // gelu_tanh is x gate(2 u), with the gate of silu and u = sqrt(2 / pi) (x + 0.044715 x^3). Where the gate is 0 or 1 to
  // the last bit x^2 may be infinite: the bound keeps it from meeting a zero.
  const Vec<float> bounded = at_most<float>(at_least<float>(x, -1e6f), 1e6f), square = bounded * bounded;
  const Vec<float> gate = sigmoid(bounded * (square * 0.044715f + 1.0f) * 1.59576912f);
  return gate + gate * (1.0f - gate) * bounded * (square * (3 * 0.044715f) + 1.0f) * 1.59576912f;
}

// gradients[i] times the derivative at x[i].
template <class A>
static __attribute__((noinline)) void differentiate_each(Vec<A>* gradients, const Vec<A>* values, int count,
                                                         Activation activation) {
  for (int i = 0; i < count; ++i) {
    const Vec<A> x = values[i];
    if (activation == Activation::hardswish) {
      const Vec<A> inside = gradients[i] * (x * A(1.0 / 3) + A(0.5));
      gradients[i] = x <= A(-3) ? Vec<A>{} : x >= A(3) ? gradients[i] : inside;
    } else if constexpr (sizeof(A) == 4) {
      gradients[i] *= derivative_in_vectors(x, activation);
    } else {
      for (int lane = 0; lane < kLanes<A>; ++lane) gradients[i][lane] *= A(activation_derivative(x[lane], activation));
    }
  }
}

// The gradients stay in registers for none, relu and relu6: only a copy of them has an address.
template <class A, int R>
DWCONV_INLINE void differentiate(Vec<A> (&gradients)[R], const Vec<A> (&x)[R], Activation activation) {
  if (activation == Activation::none) return;
  if (activation <= Activation::relu6) {
    DWCONV_UNROLL
    for (int r = 0; r < R; ++r) gradients[r] = x[r] <= A(0) ? Vec<A>{} : gradients[r];
    if (activation == Activation::relu) return;
    DWCONV_UNROLL
    for (int r = 0; r < R; ++r) gradients[r] = x[r] >= A(6) ? Vec<A>{} : gradients[r];
    return;
  }
  Vec<A> products[R], values[R];
  DWCONV_UNROLL
  for (int r = 0; r < R; ++r) products[r] = gradients[r], values[r] = x[r];
  differentiate_each<A>(products, values, R, activation);
  DWCONV_UNROLL
  for (int r = 0; r < R; ++r) gradients[r] = products[r];
}

DWCONV_END_TARGET

#endif  // DWCONV_CPU_SIMD_DERIVATIVE_H
