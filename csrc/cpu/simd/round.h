// Sums to bf16 by the instruction for it, vcvtneps2bf16 (AVX-512 BF16): two operations where narrow() takes seven.
//
// It takes subnormal numbers for zero whatever the mode of the processor, which would make results depend on the machine.
// So vectors are looked at for subnormal numbers, and where there is one, which is next to never, narrow() rounds them.
#if defined(DWCONV_CPU_SIMD_ROUND_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_SIMD_ROUND_H
#undef DWCONV_CPU_SIMD_ROUND_H
#else
#define DWCONV_CPU_SIMD_ROUND_H
#endif

#include "vec.h"

DWCONV_BEGIN_TARGET

// Whether there is such an instruction here, for results of type T.
template <class T>
constexpr bool kRoundsAtOnce = kVecBytes == 64 && std::is_same_v<T, bf16>;

#if DWCONV_VEC_BYTES == 64
static inline bool rounds_at_once() {
  static const bool has = __builtin_cpu_supports("avx512bf16");
  return has;
}

// Subnormal numbers become zero. Written out, so that the target stays AVX-512 without BF16.
DWCONV_INLINE Half16 rounded_to_normal(Vec<float> value) {
  Half16 half;
  asm("vcvtneps2bf16 %1, %0" : "=v"(half) : "v"(value));
  return half;
}

template <class T>
static __attribute__((noinline)) void store_each(T* p, int64_t pitch, const Vec<Acc<T>>* values, int count) {
  for (int i = 0; i < count; ++i) store(p + i * pitch, values[i]);
}

// values[r] to p + r*pitch. The processor has the instruction.
template <int R>
DWCONV_INLINE void store_at_once(bf16* p, int64_t pitch, const Vec<float> (&values)[R]) {
  constexpr int kSubnormal = 0x20;
  uint32_t subnormal = 0;
  DWCONV_UNROLL
  for (int r = 0; r < R; ++r) {
    const Half16 half = rounded_to_normal(values[r]);
    __builtin_memcpy(p + r * pitch, &half, sizeof half);
    subnormal |= _mm512_fpclass_ps_mask((__m512)values[r], kSubnormal);
  }
  if (__builtin_expect(subnormal == 0, 1)) return;
  Vec<float> copies[R];  // only a copy has an address
  DWCONV_UNROLL
  for (int r = 0; r < R; ++r) copies[r] = values[r];
  store_each(p, pitch, copies, R);
}
#else
static inline bool rounds_at_once() { return false; }
#endif

DWCONV_END_TARGET

#endif  // DWCONV_CPU_SIMD_ROUND_H
