// Masks as the tiles of the kernel `phases` keep and hold them, and what they do with one.
#if defined(DWCONV_CPU_NCHW_PHASES_MASKS_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_NCHW_PHASES_MASKS_H
#undef DWCONV_CPU_NCHW_PHASES_MASKS_H
#else
#define DWCONV_CPU_NCHW_PHASES_MASKS_H
#endif

#include "../simd/lanes.h"

DWCONV_BEGIN_TARGET
#if DWCONV_VEC_BYTES >= 32

// Lane i from lane i + by. The last lanes keep their own.
template <int by, class A, int... i>
DWCONV_INLINE Vec<A> shift_down(Vec<A> value, std::integer_sequence<int, i...>) {
  return DWCONV_SHUFFLE(A, value, value, i + by < kLanes<A> ? i + by : i);
}

// The lanes [lo, hi) as bits: two bytes where a mask takes a vector.
template <class A>
DWCONV_INLINE uint16_t lane_bits(int64_t lo, int64_t hi) {
  const int64_t first = std::clamp<int64_t>(lo, 0, kLanes<A>), last = std::clamp<int64_t>(hi, first, kLanes<A>);
  return uint16_t((1u << last) - (1u << first));
}

// Such bits as a loop holds them: in the register that masked instructions want. Without AVX-512 the lanes are neighbours.
#if DWCONV_VEC_BYTES == 64
template <class A>
using HeldMask = __mmask16;
template <class A>
DWCONV_INLINE HeldMask<A> held(uint16_t bits) {
  return bits;
}
template <class A>
DWCONV_INLINE Mask<A> mask_of(HeldMask<A> mask) {
  return Mask<A>::of(mask);
}
#else
template <class A>
using HeldMask = Mask<A>;
template <class A>
DWCONV_INLINE HeldMask<A> held(uint16_t bits) {
  return bits ? Mask<A>(__builtin_ctz(bits), 32 - __builtin_clz(bits)) : Mask<A>(0, 0);
}
template <class A>
DWCONV_INLINE const Mask<A>& mask_of(const HeldMask<A>& mask) {
  return mask;
}
#endif

#if DWCONV_VEC_BYTES == 32
// Elements [lo, hi) of two bytes, 0 <= lo < hi, in N pairs: whole pairs by a masked load, one at either end by itself.
template <int N, class Pairs, class T>
DWCONV_INLINE Pairs load_pairs(const T* p, int lo, int hi) {
  typedef int32_t Four __attribute__((vector_size(16)));
  using Lanes = std::conditional_t<N == 8, Ints<float>, Four>;
  Lanes pair = {};
  for (int i = 0; i < N; ++i) pair[i] = i;
  const Lanes whole = (pair >= (lo + 1) / 2) & (pair < hi / 2);
  Lanes value;
  if constexpr (N == 8) value = (Lanes)_mm256_maskload_epi32(reinterpret_cast<const int*>(p), (__m256i)whole);
  if constexpr (N == 4) value = (Lanes)_mm_maskload_epi32(reinterpret_cast<const int*>(p), (__m128i)whole);
  if (lo % 2 != 0) value |= (pair == lo / 2) & int(uint32_t(load_bytes<uint16_t>(p + lo)) << 16);
  if (hi % 2 != 0) value |= (pair == hi / 2) & int(load_bytes<uint16_t>(p + hi - 1));
  return (Pairs)value;
}
#endif

#if DWCONV_VEC_BYTES == 32
// In the lower half of each lane, as that of vec.h.
DWCONV_INLINE Bits32 narrow_bits(Vec<float> value, f16) {
  return __builtin_convertvector(narrow(value, f16{}), Bits32);
}
#endif

// load(), without a loop over the lanes of a mask that 16-bit types have no instruction for.
template <class T>
DWCONV_INLINE Vec<Acc<T>> load_some(const T* p, const Mask<Acc<T>>& mask) {
#if DWCONV_VEC_BYTES == 32
  if constexpr (sizeof(T) == 2) {
    if (__builtin_expect(mask.full(), 1)) return load(p);
    if (mask.empty()) return Vec<Acc<T>>{};
    return widen(load_pairs<4, Half16>(p, mask.lo(), mask.hi()), T{});
  }
#endif
  return load(p, mask);
}

// 2 L elements of two bytes, two by two, those whose bits are set: neighbours.
template <class T>
DWCONV_INLINE Bits32 load_columns(const T* p, uint32_t columns) {
#if DWCONV_VEC_BYTES == 64
  return (Bits32)_mm512_maskz_loadu_epi16(columns, p);
#else
  if (__builtin_expect(columns == 0xffff, 1)) return load_bytes<Bits32>(p);
  if (columns == 0) return Bits32{};
  return load_pairs<8, Bits32>(p, __builtin_ctz(columns), 32 - __builtin_clz(columns));
#endif
}

// The first of N elements that lie in order, in pieces: without masked stores of their size.
template <int N, class T>
DWCONV_INLINE void store_count(T* p, const T* from, int count) {
  DWCONV_UNROLL
  for (int piece = N / 2; piece > 0; piece /= 2) {
    if (!(count & piece)) continue;
    if (piece == 8) __builtin_memcpy(p, from, 8 * sizeof(T));
    if (piece == 4) __builtin_memcpy(p, from, 4 * sizeof(T));
    if (piece == 2) __builtin_memcpy(p, from, 2 * sizeof(T));
    if (piece == 1) __builtin_memcpy(p, from, sizeof(T));
    p += piece, from += piece;
  }
}

// The first lanes of a vector: a mask's, which begins with lane 0.
template <class T>
DWCONV_INLINE void store_first(T* p, Vec<Acc<T>> value, const Mask<Acc<T>>& mask) {
#if DWCONV_VEC_BYTES == 64
  store(p, value, mask);
#else
  if (__builtin_expect(mask.full(), 1)) return store(p, value);
  T lane[kLanes<Acc<T>>];
  store(lane, value);
  store_count<kLanes<Acc<T>>>(p, lane, mask.hi());
#endif
}

// sum + a*b, in the lanes of the mask if it is needed: as add_product(). Without masked arithmetic that takes another
// instruction for each product. So tiles leave it out, and filters with an infinite tap, whose product with a padding's
// zero would be NaN, go by single steps.
constexpr bool kMaskedProducts = kVecBytes == 64;
template <class A, bool masked>
DWCONV_INLINE Vec<A> add_product_if(Vec<A> sum, Vec<A> a, Vec<A> b, const HeldMask<A>& mask) {
  if constexpr (masked) return add_product<A>(sum, a, b, mask_of<A>(mask));
  if constexpr (!masked) return sum + a * b;
}

#endif
DWCONV_END_TARGET

#endif  // DWCONV_CPU_NCHW_PHASES_MASKS_H
