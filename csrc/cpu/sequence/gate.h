// The sigmoid behind the SiLU of sequences, to the digits that its storage type T has.
#if defined(DWCONV_CPU_SEQUENCE_GATE_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_SEQUENCE_GATE_H
#undef DWCONV_CPU_SEQUENCE_GATE_H
#else
#define DWCONV_CPU_SEQUENCE_GATE_H
#endif

#include "../simd/activate.h"

DWCONV_BEGIN_TARGET

// 1 / b of a b from 1 up, infinity included. The estimate has 14 bits, f16 11.
DWCONV_INLINE Vec<float> short_inverse(Vec<float> b) {
#if DWCONV_VEC_BYTES == 64
  Vec<float> inverse;
  asm("vrcp14ps %1, %0" : "=v"(inverse) : "v"(b));
  return inverse;
#else
  return 1.0f / b;
#endif
}

// 1 / (1 + e^-x) to 7e-5 of itself, as exponential() has it with fewer terms and one part of ln(2). Both bounds are where
// the power of two is infinite or zero, and so the result 0 or 1; NaN stays.
DWCONV_INLINE Vec<float> short_sigmoid(Vec<float> x) {
  // Fitted at Chebyshev's points: relative error 4e-6.
  static constexpr float kExp[] = {1.0f, 0.999962291856f, 0.499993720921f, 0.167921476711f, 0.0418756521989f};
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: what is added to it loses its fraction
  x = at_most<float>(at_least<float>(x, -89), 88);
  const Vec<float> shifted = x * -1.44269504f + kRound, n = shifted - kRound;
  const Vec<float> r = -x - n * 0.693147181f;
  const Vec<float> power = (Vec<float>)(((Bits32)shifted << 23) + bits_from_float(1.0f));
  return short_inverse(polynomial(r, kExp) * power + 1.0f);
}

template <class T>
DWCONV_INLINE Vec<float> gate(Vec<float> x) {
  if constexpr (sizeof(T) == 2) {
    return short_sigmoid(x);
  } else {
    return sigmoid(x);
  }
}

DWCONV_END_TARGET

#endif  // DWCONV_CPU_SEQUENCE_GATE_H
