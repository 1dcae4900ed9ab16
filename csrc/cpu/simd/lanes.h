// The second half of vec.h: what moves values between lanes. Strides of two, permutations, transpositions, sums of lanes.
#if defined(DWCONV_CPU_SIMD_LANES_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_SIMD_LANES_H
#undef DWCONV_CPU_SIMD_LANES_H
#else
#define DWCONV_CPU_SIMD_LANES_H
#endif

#include "vec.h"

DWCONV_BEGIN_TARGET

// ---- strides of two -------------------------------------------------------------------------------------------------

template <class A>
using LaneIndices = std::make_integer_sequence<int, kLanes<A>>;

#if defined(__clang__)
#define DWCONV_SHUFFLE(A, a, b, index) __builtin_shufflevector(a, b, (index)...)
#else
#define DWCONV_SHUFFLE(A, a, b, index) __builtin_shuffle(a, b, Ints<A>{(index)...})
#endif

// low and high become a0 b0 a1 b1 ...
template <class A, int... i>
DWCONV_INLINE void interleave(Vec<A> a, Vec<A> b, Vec<A>& low, Vec<A>& high, std::integer_sequence<int, i...>) {
  constexpr int L = kLanes<A>;
  low = DWCONV_SHUFFLE(A, a, b, i / 2 + (i % 2) * L);
  high = DWCONV_SHUFFLE(A, a, b, i / 2 + (i % 2) * L + L / 2);
}

template <class A, int... i>
DWCONV_INLINE Vec<A> pick_even(Vec<A> low, Vec<A> high, std::integer_sequence<int, i...>) {
  return DWCONV_SHUFFLE(A, low, high, 2 * i);
}

template <class A, int... i>
DWCONV_INLINE Vec<A> pick_odd(Vec<A> low, Vec<A> high, std::integer_sequence<int, i...>) {
  return DWCONV_SHUFFLE(A, low, high, 2 * i + 1);
}

// Lane i from p[2*i], out of a vector at p and one that ends with the last element wanted.
template <class T, int... i>
DWCONV_INLINE Vec<Acc<T>> load_even(const T* p, std::integer_sequence<int, i...>) {
  using A = Acc<T>;
  constexpr int L = kLanes<A>;
  return DWCONV_SHUFFLE(A, load(p), load(p + L - 1), 2 * i < L ? 2 * i : 2 * i + 1);
}

// Lane i from p[2*i], for the lanes of the mask.
template <class T>
DWCONV_INLINE Vec<Acc<T>> load_even(const T* p, Mask<Acc<T>> mask) {
#if DWCONV_VEC_BYTES == 64
  // Masks with a bit for each element to read: the elements between them may lie outside the tensor.
  const uint32_t even = _pdep_u32(mask.bits, 0x55555555u);
  if constexpr (sizeof(T) == 2) {
    const Bits32 pairs = (Bits32)_mm512_maskz_loadu_epi16(even, p);
    return widen(__builtin_convertvector(pairs, Half16), T{});
  } else {
    constexpr int L = kLanes<T>;
    Vec<T> low, high;
    if constexpr (sizeof(T) == 4) {
      low = (Vec<T>)_mm512_maskz_loadu_ps(__mmask16(even), p);
      high = (Vec<T>)_mm512_maskz_loadu_ps(__mmask16(even >> 16), p + L);
    } else {
      low = (Vec<T>)_mm512_maskz_loadu_pd(__mmask8(even), p);
      high = (Vec<T>)_mm512_maskz_loadu_pd(__mmask8(even >> 8), p + L);
    }
    return pick_even<T>(low, high, LaneIndices<T>{});
  }
#else
  return __builtin_expect(mask.full(), 1) ? load_even(p, LaneIndices<Acc<T>>{}) : load_lanes(p, 2, mask);
#endif
}

// Lane i from p[i*step], for the lanes of the mask.
template <class T>
DWCONV_INLINE Vec<Acc<T>> load_strided(const T* p, int64_t step, Mask<Acc<T>> mask) {
  if (step == 1) return load(p, mask);
  if (step == 2) return load_even(p, mask);
  return load_lanes(p, step, mask);
}

// ---- registers ------------------------------------------------------------------------------------------------------

// Keeps the compiler from taking a value apart or moving it: a vector that was loaded stays in its register, and is not
// loaded again by each instruction that uses it.
template <class V>
DWCONV_INLINE void opaque(V& value) {
  if constexpr (std::is_arithmetic_v<V> || std::is_pointer_v<V>) {
    asm("" : "+r"(value));
  } else {
#if defined(__x86_64__)
    asm("" : "+v"(value));
#elif defined(__aarch64__)
    asm("" : "+w"(value));
#endif
  }
}

// The next address, in its register: compilers else keep a register for every multiple of the pitch, and spill them all.
template <class P>
DWCONV_INLINE void advance(P*& pointer, int64_t by) {
  pointer += by;
  opaque(pointer);
}

// A load that the compiler may not repeat.
template <class T>
DWCONV_INLINE Vec<Acc<T>> load_once(const T* p) {
  Vec<Acc<T>> value = load(p);
  opaque(value);
  return value;
}

// ---- whole vectors --------------------------------------------------------------------------------------------------

template <class A>
DWCONV_INLINE Vec<A> broadcast(A value) {
  return value - Vec<A>{};  // not a sum: -0 must stay -0
}

// Lane i from lane index[i] of the value.
template <class A>
DWCONV_INLINE Vec<A> permute(Vec<A> value, Ints<A> index) {
#if defined(__clang__)
  Vec<A> result;
  for (int i = 0; i < kLanes<A>; ++i) result[i] = value[index[i]];
  return result;
#else
  return __builtin_shuffle(value, index);
#endif
}

// Lane j of row i becomes lane i of row j.
#if DWCONV_VEC_BYTES == 64
// Quarters of 16 bytes, picked by two bits each: two of a, then two of b.
template <int pick>
DWCONV_INLINE __m512 quarters(__m512 a, __m512 b) {
  return _mm512_maskz_shuffle_f32x4(0xffff, a, b, pick);
}

// Shuffles within quarters, then of quarters: half as long as two-source permutes take. (The unmasked forms make GCC 12
// warn in its own header.)
template <class A>
DWCONV_INLINE void transpose_lanes(Vec<A> (&rows)[kLanes<A>]) {
  constexpr int L = kLanes<A>, kWithin = L / 4;
  __m512 part[L];  // [4 groups of rows][column within a quarter]
  DWCONV_UNROLL
  for (int i = 0; i < L; i += 2) {
    if constexpr (sizeof(A) == 4) {
      part[i] = _mm512_maskz_unpacklo_ps(0xffff, (__m512)rows[i], (__m512)rows[i + 1]);
      part[i + 1] = _mm512_maskz_unpackhi_ps(0xffff, (__m512)rows[i], (__m512)rows[i + 1]);
    } else {
      part[i] = (__m512)_mm512_maskz_unpacklo_pd(0xff, (__m512d)rows[i], (__m512d)rows[i + 1]);
      part[i + 1] = (__m512)_mm512_maskz_unpackhi_pd(0xff, (__m512d)rows[i], (__m512d)rows[i + 1]);
    }
  }
  if constexpr (sizeof(A) == 4) {
    DWCONV_UNROLL
    for (int i = 0; i < L; i += 4) {
      const __m512d low[2] = {(__m512d)part[i], (__m512d)part[i + 2]};
      const __m512d high[2] = {(__m512d)part[i + 1], (__m512d)part[i + 3]};
      part[i] = (__m512)_mm512_maskz_unpacklo_pd(0xff, low[0], low[1]);
      part[i + 1] = (__m512)_mm512_maskz_unpackhi_pd(0xff, low[0], low[1]);
      part[i + 2] = (__m512)_mm512_maskz_unpacklo_pd(0xff, high[0], high[1]);
      part[i + 3] = (__m512)_mm512_maskz_unpackhi_pd(0xff, high[0], high[1]);
    }
  }
  DWCONV_UNROLL
  for (int c = 0; c < kWithin; ++c) {
    const __m512 a = part[c], b = part[kWithin + c], d = part[2 * kWithin + c], e = part[3 * kWithin + c];
    const __m512 even[2] = {quarters<0x88>(a, b), quarters<0x88>(d, e)};
    const __m512 odd[2] = {quarters<0xdd>(a, b), quarters<0xdd>(d, e)};
    rows[c] = (Vec<A>)quarters<0x88>(even[0], even[1]);
    rows[kWithin + c] = (Vec<A>)quarters<0x88>(odd[0], odd[1]);
    rows[2 * kWithin + c] = (Vec<A>)quarters<0xdd>(even[0], even[1]);
    rows[3 * kWithin + c] = (Vec<A>)quarters<0xdd>(odd[0], odd[1]);
  }
}
#else
// A perfect shuffle of all rows, as often as a lane number has bits.
template <class A>
DWCONV_INLINE void transpose_lanes(Vec<A> (&rows)[kLanes<A>]) {
  constexpr int L = kLanes<A>;
  DWCONV_UNROLL
  for (int step = 1; step < L; step *= 2) {
    Vec<A> shuffled[L];
    DWCONV_UNROLL
    for (int i = 0; i < L / 2; ++i) {
      interleave<A>(rows[i], rows[i + L / 2], shuffled[2 * i], shuffled[2 * i + 1], LaneIndices<A>{});
    }
    DWCONV_UNROLL
    for (int i = 0; i < L; ++i) rows[i] = shuffled[i];
  }
}
#endif

#if DWCONV_VEC_BYTES == 64
// Lane i from lane index[i] of a and b, b's lanes counted on from a's.
template <class A>
DWCONV_INLINE Vec<A> permute(Vec<A> a, Vec<A> b, Ints<A> index) {
  if constexpr (sizeof(A) == 4) {
    return (Vec<A>)_mm512_permutex2var_ps((__m512)a, (__m512i)index, (__m512)b);
  } else {
    return (Vec<A>)_mm512_permutex2var_pd((__m512d)a, (__m512i)index, (__m512d)b);
  }
}
#endif

// The sum of all lanes, in f64: halves added until one is left, always in the same order.
template <class A>
DWCONV_INLINE double sum(Vec<A> value) {
  constexpr int L = kVecBytes / int(sizeof(double));
  Vec<double> wide;
  if constexpr (sizeof(A) == 8) {
    wide = value;
  } else {
    typedef float Half __attribute__((vector_size(kVecBytes / 2)));
    Half half[2];
    __builtin_memcpy(half, &value, sizeof value);
    wide = __builtin_convertvector(half[0], Vec<double>) + __builtin_convertvector(half[1], Vec<double>);
  }
  double lane[L];
  __builtin_memcpy(lane, &wide, sizeof wide);
  for (int width = L / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) lane[i] += lane[i + width];
  }
  return lane[0];
}

// sums[i] += the sum of all lanes of values[i]: pairs of vectors fold into one, until one is left whose lanes are sums.
template <class A, int N>
DWCONV_INLINE void add_sums(double (&sums)[N], const Vec<A> (&values)[N]) {
  constexpr int L = kLanes<A>;
  for (int first = 0; first < N; first += L) {
    Vec<A> folded[L];
    DWCONV_UNROLL
    for (int i = 0; i < L; ++i) folded[i] = first + i < N ? values[std::min(first + i, N - 1)] : Vec<A>{};
    DWCONV_UNROLL
    for (int count = L; count > 1; count /= 2) {
      DWCONV_UNROLL
      for (int i = 0; i < count; i += 2) {
        if (first + i * (L / count) >= N) continue;  // nothing but zeros
        Vec<A> low, high;
        interleave<A>(folded[i], folded[i + 1], low, high, LaneIndices<A>{});
        folded[i / 2] = low + high;
      }
    }
    A lane[L];
    __builtin_memcpy(lane, &folded[0], sizeof lane);
    for (int i = 0; i < L && first + i < N; ++i) {
      int from = 0;  // the bits of i, reversed
      for (int bit = 1; bit < L; bit *= 2) from = 2 * from + (i & bit ? 1 : 0);
      sums[first + i] += lane[from];
    }
  }
}

DWCONV_END_TARGET

#endif  // DWCONV_CPU_SIMD_LANES_H
