// The activations on accumulators, as the last step before they are stored. f32, which the 16-bit types accumulate in
// too, is computed in vectors throughout, within a few units in the last place of activation.h where its result is not
// tiny; f64 takes silu and both gelu lane by lane from there.
#if defined(DWCONV_CPU_SIMD_ACTIVATE_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_SIMD_ACTIVATE_H
#undef DWCONV_CPU_SIMD_ACTIVATE_H
#else
#define DWCONV_CPU_SIMD_ACTIVATE_H
#endif

#include <limits>

#include "activation.h"
#include "lanes.h"

DWCONV_BEGIN_TARGET

template <class A>
DWCONV_INLINE Vec<A> at_least(Vec<A> value, A bound) {
  return value < bound ? broadcast<A>(bound) : value;  // NaN stays
}

template <class A>
DWCONV_INLINE Vec<A> at_most(Vec<A> value, A bound) {
  return value > bound ? broadcast<A>(bound) : value;
}

// The coefficients of the polynomials below, from the constant up.
template <int N>
DWCONV_INLINE Vec<float> polynomial(Vec<float> x, const float (&coefficients)[N]) {
  Vec<float> sum = broadcast<float>(coefficients[N - 1]);
  DWCONV_UNROLL
  for (int i = N - 2; i >= 0; --i) sum = sum * x + coefficients[i];
  return sum;
}

// e^x = 2^n e^r with a whole n and |r| <= ln(2) / 2. Zero below -104, infinity above 89; NaN stays.
DWCONV_INLINE Vec<float> exponential(Vec<float> x) {
  // Fitted at Chebyshev's points: relative error 3e-9.
  static constexpr float kExp[] = {
      1.0f, 1.00000003772f, 0.500000004712f, 0.166664155147f, 0.0416663528968f, 0.00837512639815f, 0.0013941108434f};
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: what is added to it loses its fraction
  x = at_most<float>(at_least<float>(x, -104), 89);
  const Vec<float> shifted = x * 1.44269504f + kRound, n = shifted - kRound;
  const Vec<float> r = (x - n * 0.693145752f) - n * 1.42860677e-6f;  // ln(2) in two parts, the first of 16 bits
  // n + 256 > 0, so that halves are halves; two factors, because 2^n alone may not be a float where the result is one.
  const Bits32 whole = (Bits32)shifted - (bits_from_float(kRound) - 256u), half = whole >> 1;
  return polynomial(r, kExp) * (Vec<float>)((half - 1u) << 23) * (Vec<float>)((whole - half - 1u) << 23);
}

// Half of erfc(|x| / sqrt(2)), the weight of a normal distribution's tail, as e^(-x^2 / 2) t P(t), t = 1 / (1 + c |x|).
DWCONV_INLINE Vec<float> normal_tail(Vec<float> x) {
  // Fitted to erfcx(z) / t for z up to 10.2, where the tail is no float any more: relative error 7e-8 (Remez).
  static constexpr float kTail[] = {0.176396295886f,    0.174853205369f, 0.177676454643f,
                                    0.115079264263f,    0.190866988415f, 0.0579468647711f,
                                    -0.00362247386221f, 0.182536811988f, -0.0717334763585f};
  const Vec<float> magnitude = x < 0 ? -x : x;
  const Vec<float> t = 1.0f / (1.0f + magnitude * (0.3125f * 0.707106781f));
  return exponential(x * x * -0.5f) * (0.5f * t) * polynomial(t, kTail);
}

DWCONV_INLINE Vec<float> activated_in_vectors(Vec<float> x, Activation activation) {
  if (activation == Activation::silu) return x / (1.0f + exponential(-x));
  if (activation == Activation::sigmoid) return 1.0f / (1.0f + exponential(-x));
  if (activation == Activation::gelu) {
    const Vec<float> tail = normal_tail(x);
    return x * (x < 0 ? tail : 1.0f - tail);
  }
  // gelu_tanh: x (1 + tanh(u)) / 2 = x / (1 + e^(-2 u))
  return x / (1.0f + exponential(x * (x * x * 0.044715f + 1.0f) * -1.59576912f));
}

template <class A>
static __attribute__((noinline)) void activate_each(Vec<A>* values, int count, Activation activation) {
  for (int i = 0; i < count; ++i) {
    Vec<A>& x = values[i];
    switch (activation) {
      case Activation::none: break;
      case Activation::relu: x = at_least<A>(x, 0); break;
      case Activation::relu6: x = at_most<A>(at_least<A>(x, 0), 6); break;
      case Activation::hardswish: x = x * at_most<A>(at_least<A>(x + A(3), 0), 6) / A(6); break;
      case Activation::hardsigmoid: x = at_most<A>(at_least<A>(x + A(3), 0), 6) / A(6); break;
      default:
        if constexpr (sizeof(A) == 4) {
          x = activated_in_vectors(x, activation);
        } else {
          for (int lane = 0; lane < kLanes<A>; ++lane) x[lane] = A(activated(x[lane], activation));
        }
    }
  }
}

// The R accumulators stay in registers for relu, relu6 and where there is nothing to do: only a copy of them has an address.
template <class A, int R>
DWCONV_INLINE void activate(Vec<A> (&acc)[R], Activation activation) {
  if (__builtin_expect(activation == Activation::none, 1)) return;
  if (activation <= Activation::relu6) {
    const A most = activation == Activation::relu6 ? A(6) : std::numeric_limits<A>::infinity();
    DWCONV_UNROLL
    for (int r = 0; r < R; ++r) acc[r] = at_most<A>(at_least<A>(acc[r], 0), most);
    return;
  }
  Vec<A> values[R];
  DWCONV_UNROLL
  for (int r = 0; r < R; ++r) values[r] = acc[r];
  activate_each<A>(values, R, activation);
  DWCONV_UNROLL
  for (int r = 0; r < R; ++r) acc[r] = values[r];
}

DWCONV_END_TARGET

#endif  // DWCONV_CPU_SIMD_ACTIVATE_H
