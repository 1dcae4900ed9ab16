// The activations on accumulators, as the last step before they are stored. f32, which the 16-bit types accumulate in
// too, is computed in vectors throughout, within a few units in the last place of activation.h where its result is not
// tiny; f64 takes silu and both gelu lane by lane from there. gelu has fewer digits where its result is stored in 16 bits.
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
  Vec<A> least = broadcast<A>(bound);
  opaque(least);                         // with a zero that it knows, GCC compares and blends
  return least > value ? least : value;  // one instruction on x86; NaN stays
}

template <class A>
DWCONV_INLINE Vec<A> at_most(Vec<A> value, A bound) {
  const Vec<A> most = broadcast<A>(bound);
  return most < value ? most : value;
}

// The coefficients of the polynomials below, from the constant up.
template <int N>
DWCONV_INLINE Vec<float> polynomial(Vec<float> x, const float (&coefficients)[N]) {
  Vec<float> sum = broadcast<float>(coefficients[N - 1]);
  DWCONV_UNROLL
  for (int i = N - 2; i >= 0; --i) sum = sum * x + coefficients[i];
  return sum;
}

// e^x = 2^n e^r with a whole n and |r| <= ln(2) / 2, of an x that is not positive. Zero below -88, where results are
// subnormal, which takes a processor a hundred times as long; NaN stays.
DWCONV_INLINE Vec<float> exponential(Vec<float> x) {
  // Fitted at Chebyshev's points: relative error 3e-9.
  static constexpr float kExp[] = {
      1.0f, 1.00000003772f, 0.500000004712f, 0.166664155147f, 0.0416663528968f, 0.00837512639815f, 0.0013941108434f};
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: what is added to it loses its fraction
  x = at_least<float>(x, -88);
  const Vec<float> shifted = x * 1.44269504f + kRound, n = shifted - kRound;
  const Vec<float> r = (x - n * 0.693145752f) - n * 1.42860677e-6f;  // ln(2) in two parts, the first of 16 bits
  // The lowest bits of `shifted` are those of n: moved to the exponent, and added to that of 1. -127 makes zero of it.
  const Vec<float> power = (Vec<float>)(((Bits32)shifted << 23) + bits_from_float(1.0f));
  return polynomial(r, kExp) * power;
}

// a / b of a finite a and b from 1 to 2^100; NaN stays. To divide 64 bytes takes 16 cycles, to mend an estimate of 14 bits 5.
DWCONV_INLINE Vec<float> quotient(Vec<float> a, Vec<float> b) {
#if DWCONV_VEC_BYTES == 64
  Vec<float> inverse;
  asm("vrcp14ps %1, %0" : "=v"(inverse) : "v"(b));
  const Vec<float> estimate = a * inverse;
  return estimate + (a - estimate * b) * inverse;
#else
  return a / b;
#endif
}

// 1 / (1 + e^-x) = e^x / (1 + e^x), of which the exponential of the negative one is no larger than 1.
DWCONV_INLINE Vec<float> sigmoid(Vec<float> x) {
  const Vec<float> one = broadcast<float>(1);
  const Vec<float> small = exponential((Vec<float>)((Bits32)x | 0x80000000u));
  return quotient(x < 0 ? small : one, one + small);
}

// Half of erfc(|x| / sqrt(2)), the weight of a normal distribution's tail, as e^(-x^2 / 2) t P(t), t = 1 / (1 + c |x|).
DWCONV_INLINE Vec<float> normal_tail(Vec<float> x) {
  // Fitted to erfcx(z) / t for z up to 10.2, where the tail is no float any more: relative error 7e-8 (Remez).
  static constexpr float kTail[] = {0.176396295886f,    0.174853205369f, 0.177676454643f,
                                    0.115079264263f,    0.190866988415f, 0.0579468647711f,
                                    -0.00362247386221f, 0.182536811988f, -0.0717334763585f};
  const Vec<float> t = quotient(
      broadcast<float>(1), 1.0f + at_most<float>((Vec<float>)((Bits32)x & 0x7fffffffu), 64) * (0.3125f * 0.707106781f));
  return exponential(x * x * -0.5f) * (0.5f * t) * polynomial(t, kTail);
}

// The same for results of 16 bits, as a power of two whose exponent is a polynomial: no division, and 23 operations for
// gelu where normal_tail makes 37 of it. Relative error 1.4e-5 down to 2^-36, further on some percent, and zero from
// 2^-127 on.
DWCONV_INLINE Vec<float> short_normal_tail(Vec<float> x) {
  // Fitted to the logarithm to base 2 of the tail up to 6.7, and falling beyond: absolute error 9e-6 (Lawson).
  static constexpr float kLog[] = {-1.000009f,   -1.1511213f,     -0.4587523f,  -0.053698864f,
                                   0.008391111f, -0.00090329367f, 5.84249e-05f, -1.688977e-06f};
  // 2^r for |r| <= 1/2: relative error 2.6e-6.
  static constexpr float kPower[] = {1.0000001f, 0.693121f, 0.24021865f, 0.055922024f, 0.009685711f};
  constexpr float kRound = 12582912.0f;  // as in exponential()
  constexpr float kLast = 12.8125f;      // where the logarithm is -127, of which the power below makes zero
  const Vec<float> z = at_most<float>((Vec<float>)((Bits32)x & 0x7fffffffu), kLast);
  const Vec<float> logarithm = polynomial(z, kLog), shifted = logarithm + kRound, r = logarithm - (shifted - kRound);
  return polynomial(r, kPower) * (Vec<float>)(((Bits32)shifted << 23) + bits_from_float(1.0f));
}

// For results of type T.
template <class T>
DWCONV_INLINE Vec<float> activated_in_vectors(Vec<float> x, Activation activation) {
  if (activation == Activation::silu) return x * sigmoid(x);
  if (activation == Activation::sigmoid) return sigmoid(x);
  if (activation == Activation::gelu) {
    const Vec<float> tail = sizeof(T) == 2 ? short_normal_tail(x) : normal_tail(x);
    return x * (x < 0 ? tail : 1.0f - tail);
  }
  // gelu_tanh: x (1 + tanh(u)) / 2 = x / (1 + e^(-2 u))
  return x * sigmoid(x * (x * x * 0.044715f + 1.0f) * 1.59576912f);
}

// min(max(x + 3, 0), 6) / 6. As with quotient, a product and what it lacks are faster than a division of 64 bytes.
template <class A>
DWCONV_INLINE Vec<A> hard_gate(Vec<A> x) {
  const Vec<A> gate = at_most<A>(at_least<A>(x + A(3), 0), 6);
#if DWCONV_VEC_BYTES == 64
  constexpr A kSixth = A(1) / A(6);
  const Vec<A> estimate = gate * kSixth;
  return estimate + (gate - estimate * A(6)) * kSixth;
#else
  return gate / A(6);
#endif
}

template <class T>
static __attribute__((noinline)) void activate_each(Vec<Acc<T>>* values, int count, Activation activation) {
  using A = Acc<T>;
  for (int i = 0; i < count; ++i) {
    Vec<A>& x = values[i];
    switch (activation) {
      case Activation::none: break;
      case Activation::relu: x = at_least<A>(x, 0); break;
      case Activation::relu6: x = at_most<A>(at_least<A>(x, 0), 6); break;
      case Activation::hardswish: x = x * hard_gate<A>(x); break;
      case Activation::hardsigmoid: x = hard_gate<A>(x); break;
      default:
        if constexpr (sizeof(A) == 4) {
          x = activated_in_vectors<T>(x, activation);
        } else {
          for (int lane = 0; lane < kLanes<A>; ++lane) x[lane] = A(activated(x[lane], activation));
        }
    }
  }
}

// For results of type T. The R accumulators stay in registers for relu, relu6 and where there is nothing to do: only a copy
// of them has an address.
template <class T, int R>
DWCONV_INLINE void activate(Vec<Acc<T>> (&acc)[R], Activation activation) {
  using A = Acc<T>;
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
  activate_each<T>(values, R, activation);
  DWCONV_UNROLL
  for (int r = 0; r < R; ++r) acc[r] = values[r];
}

DWCONV_END_TARGET

#endif  // DWCONV_CPU_SIMD_ACTIVATE_H
