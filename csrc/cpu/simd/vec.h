// Vectors of one ISA, in GNU vector extensions: the operators + and * work on them, and a*b + c contracts to one FMA
// where the ISA has it. Included inside the namespace of a target, after DWCONV_VEC_BYTES and the target pragma; every
// function has internal linkage, so that code for one ISA never leaves its target.
//
// A kernel is written for a storage type T and computes in A = accumulator<T>::type (f32 for the 16-bit types). Loads
// convert T to A, stores round A to T once. Masks are ranges of lanes: a masked load never touches memory outside its
// lanes and returns zero there.
#if defined(DWCONV_CPU_SIMD_VEC_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_SIMD_VEC_H
#undef DWCONV_CPU_SIMD_VEC_H
#else
#define DWCONV_CPU_SIMD_VEC_H
#endif

#include "target.h"
#include "float16.h"

DWCONV_BEGIN_TARGET

#define DWCONV_INLINE_MEMBER inline __attribute__((always_inline))
#define DWCONV_INLINE static DWCONV_INLINE_MEMBER
#define DWCONV_UNROLL _Pragma("GCC unroll 32")

constexpr int kVecBytes = DWCONV_VEC_BYTES;

template <class A>
constexpr int kLanes = kVecBytes / int(sizeof(A));

template <class A>
struct vec_of {
  typedef A type __attribute__((vector_size(kVecBytes)));
};
template <class A>
using Vec = typename vec_of<A>::type;

template <class T>
using Acc = typename accumulator<T>::type;

// ---- conversions between a vector of A and kLanes<A> stored elements ------------------------------------------------

typedef uint16_t Half16 __attribute__((vector_size(kVecBytes / 2)));  // kLanes<float> elements of two bytes
typedef uint32_t Bits32 __attribute__((vector_size(kVecBytes)));

template <class Stored, class P>
DWCONV_INLINE Stored load_bytes(const P* p) {
  Stored value;
  __builtin_memcpy(&value, p, sizeof value);
  return value;
}

#if DWCONV_VEC_BYTES == 64
// One permutation puts zeros between the elements: a conversion to 32 bits and a shift take twice as long.
DWCONV_INLINE Vec<float> widen(Half16 bits, bf16) {
  const __m512i upper = _mm512_set_epi16(15, 0, 14, 0, 13, 0, 12, 0, 11, 0, 10, 0, 9, 0, 8, 0, 7, 0, 6, 0, 5, 0, 4, 0,
                                         3, 0, 2, 0, 1, 0, 0, 0);
  return (Vec<float>)_mm512_maskz_permutexvar_epi16(0xaaaaaaaau, upper, _mm512_castsi256_si512((__m256i)bits));
}
#else
DWCONV_INLINE Vec<float> widen(Half16 bits, bf16) { return (Vec<float>)(__builtin_convertvector(bits, Bits32) << 16); }
#endif

// In the lower half of each lane.
DWCONV_INLINE Bits32 narrow_bits(Vec<float> value, bf16) {
  const Bits32 bits = (Bits32)value;
  const Bits32 rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const Bits32 nan = (bits >> 16) | 0x40u;
  return (bits & 0x7fffffffu) > 0x7f800000u ? nan : rounded;
}
#if DWCONV_VEC_BYTES == 64
// One permutation takes the upper halves of the lanes, where a shift and a conversion to 16 bits take three operations.
DWCONV_INLINE Half16 narrow(Vec<float> value, bf16) {
  const __m512i upper = _mm512_set_epi16(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 31, 29, 27, 25, 23, 21, 19, 17,
                                         15, 13, 11, 9, 7, 5, 3, 1);
  const Bits32 bits = (Bits32)value;
  const Bits32 rounded = value != value ? bits | 0x400000u : bits + 0x7fffu + ((bits >> 16) & 1u);
  const __m512i halves = _mm512_maskz_permutexvar_epi16(0xffffu, upper, (__m512i)rounded);
  return load_bytes<Half16>(&halves);
}
#else
DWCONV_INLINE Half16 narrow(Vec<float> value, bf16) {
  return __builtin_convertvector(narrow_bits(value, bf16{}), Half16);
}
#endif

#if DWCONV_VEC_BYTES == 64
// The unmasked forms make GCC 12 warn in its own header.
DWCONV_INLINE Vec<float> widen(Half16 bits, f16) { return (Vec<float>)_mm512_maskz_cvtph_ps(0xffff, (__m256i)bits); }
DWCONV_INLINE Half16 narrow(Vec<float> value, f16) {
  return (Half16)_mm512_maskz_cvtps_ph(0xffff, (__m512)value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
DWCONV_INLINE Bits32 narrow_bits(Vec<float> value, f16) {
  return __builtin_convertvector(narrow(value, f16{}), Bits32);
}
#elif DWCONV_VEC_BYTES == 32
DWCONV_INLINE Vec<float> widen(Half16 bits, f16) { return (Vec<float>)_mm256_cvtph_ps((__m128i)bits); }
DWCONV_INLINE Half16 narrow(Vec<float> value, f16) {
  return (Half16)_mm256_cvtps_ph((__m256)value, _MM_FROUND_TO_NEAREST_INT);
}
#elif defined(__aarch64__)
DWCONV_INLINE Vec<float> widen(Half16 bits, f16) {
  return (Vec<float>)vcvt_f32_f16(vreinterpret_f16_u16((uint16x4_t)bits));
}
DWCONV_INLINE Half16 narrow(Vec<float> value, f16) {
  return (Half16)vreinterpret_u16_f16(vcvt_f16_f32((float32x4_t)value));
}
#else
// The steps of to_float(f16) and to_f16(float) in float16.h, on all lanes.
DWCONV_INLINE Vec<float> widen(Half16 half, f16) {
  const Bits32 all = __builtin_convertvector(half, Bits32);
  const Bits32 magnitude = ((all & 0x7fffu) << 13) + (112u << 23);
  const Bits32 exponent = all & 0x7c00u;
  const Bits32 special = magnitude + (112u << 23);
  const Vec<float> tiny = (Vec<float>)(magnitude + (1u << 23)) - float_from_bits(113u << 23);
  const Bits32 finite = exponent == 0u ? (Bits32)tiny : magnitude;
  return (Vec<float>)((exponent == 0x7c00u ? special : finite) | ((all & 0x8000u) << 16));
}
DWCONV_INLINE Half16 narrow(Vec<float> value, f16) {
  const Bits32 sign = ((Bits32)value >> 16) & 0x8000u;
  const Bits32 bits = (Bits32)value & 0x7fffffffu;
  const Bits32 nan = 0x7e00u | ((bits >> 13) & 0x3ffu);
  const Bits32 tiny = (Bits32)((Vec<float>)bits + 0.5f) - bits_from_float(0.5f);
  const Bits32 normal = (bits + 0xc8000fffu + ((bits >> 13) & 1u)) >> 13;
  const Bits32 finite = bits < (113u << 23) ? tiny : normal;
  const Bits32 large = bits > 0x7f800000u ? nan : Bits32{} + 0x7c00u;
  return __builtin_convertvector(sign | (bits >= 0x477ff000u ? large : finite), Half16);
}
#endif

// ---- masks ----------------------------------------------------------------------------------------------------------

// Whether a masked load is one instruction.
template <class T>
constexpr bool kNativeMasks = kVecBytes == 64 || (kVecBytes == 32 && sizeof(T) >= 4);

template <class A>
using Ints = typename vec_of<std::conditional_t<sizeof(A) == 8, int64_t, int32_t>>::type;

template <class A>
DWCONV_INLINE Ints<A> iota() {
  Ints<A> values = {};
  for (int i = 0; i < kLanes<A>; ++i) values[i] = i;
  return values;
}

// Some lanes of a vector of A: [lo, hi), 0 <= lo <= hi <= kLanes<A>, as the masked instructions of the ISA want them.
//
//   Mask<float>(1, 3) of 8 lanes:  . x x . . . . .
#if DWCONV_VEC_BYTES == 64
template <class A>
struct Mask {
  uint32_t bits;

  Mask() = default;
  Mask(int lo, int hi) : bits(_bzhi_u32(~0u, unsigned(hi)) & ~_bzhi_u32(~0u, unsigned(lo))) {}
  // Any lanes, next to each other or not.
  static DWCONV_INLINE_MEMBER Mask of(uint32_t bits) {
    Mask mask;
    mask.bits = bits;
    return mask;
  }

  // The first lane, and the one after the last.
  int lo() const { return int(_tzcnt_u32(bits)); }
  int hi() const { return bits ? 32 - __builtin_clz(bits) : 0; }
  bool full() const { return bits == (1u << kLanes<A>)-1; }
  bool empty() const { return bits == 0; }
};
#else
template <class A>
class Mask {
 public:
  Ints<A> bits;  // all ones in the lanes

  Mask() = default;
  Mask(int lo, int hi) : bits((iota<A>() >= lo) & (iota<A>() < hi)), lo_(lo), hi_(hi) {}

  int lo() const { return lo_; }
  int hi() const { return hi_; }
  bool full() const { return lo_ == 0 && hi_ == kLanes<A>; }
  bool empty() const { return lo_ >= hi_; }

 private:
  int lo_, hi_;
};
#endif

template <class A>
DWCONV_INLINE Mask<A> lanes(int64_t lo, int64_t hi) {
  const int64_t first = lo < 0 ? 0 : lo > kLanes<A> ? kLanes<A> : lo;
  const int64_t last = hi > kLanes<A> ? kLanes<A> : hi < first ? first : hi;
  return Mask<A>(int(first), int(last));
}

// The value in the lanes of the mask, zero in the others.
template <class A>
DWCONV_INLINE Vec<A> keep(Vec<A> value, Mask<A> mask) {
#if DWCONV_VEC_BYTES == 64
  if constexpr (sizeof(A) == 4) {
    return (Vec<A>)_mm512_maskz_mov_ps(__mmask16(mask.bits), (__m512)value);
  } else {
    return (Vec<A>)_mm512_maskz_mov_pd(__mmask8(mask.bits), (__m512d)value);
  }
#else
  return (Vec<A>)((Ints<A>)value & mask.bits);
#endif
}

// sum + a*b in the lanes of the mask. The others keep their sum, whatever a holds; b is zero there, as masked loads
// make it. An infinite gradient in a must not meet the zeros of padding in b: the product would be NaN.
template <class A>
DWCONV_INLINE Vec<A> add_product(Vec<A> sum, Vec<A> a, Vec<A> b, const Mask<A>& mask) {
#if DWCONV_VEC_BYTES == 64
  if constexpr (sizeof(A) == 4) {
    return (Vec<A>)_mm512_mask3_fmadd_ps((__m512)a, (__m512)b, (__m512)sum, __mmask16(mask.bits));
  } else {
    return (Vec<A>)_mm512_mask3_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)sum, __mmask8(mask.bits));
  }
#else
  return sum + keep<A>(a, mask) * b;
#endif
}

// ---- loads and stores -----------------------------------------------------------------------------------------------

DWCONV_INLINE float to_acc(float value) { return value; }
DWCONV_INLINE double to_acc(double value) { return value; }
DWCONV_INLINE float to_acc(bf16 value) { return to_float(value); }
DWCONV_INLINE float to_acc(f16 value) { return to_float(value); }
DWCONV_INLINE void from_acc(float value, float* p) { *p = value; }
DWCONV_INLINE void from_acc(double value, double* p) { *p = value; }
DWCONV_INLINE void from_acc(float value, bf16* p) { *p = to_bf16(value); }
DWCONV_INLINE void from_acc(float value, f16* p) { *p = to_f16(value); }

template <class T>
DWCONV_INLINE Vec<Acc<T>> load(const T* p) {
  if constexpr (sizeof(T) == 2) {
    return widen(load_bytes<Half16>(p), T{});
  } else {
    return load_bytes<Vec<T>>(p);
  }
}

template <class T>
DWCONV_INLINE void store(T* p, Vec<Acc<T>> value) {
  if constexpr (sizeof(T) == 2) {
    const Half16 narrowed = narrow(value, T{});
    __builtin_memcpy(p, &narrowed, sizeof narrowed);
  } else {
    __builtin_memcpy(p, &value, sizeof value);
  }
}

// Whether a store past the caches is one instruction and a whole line; p is aligned to it. end_of_streams() comes before
// anything that tells other threads of the result.
template <class T>
constexpr bool kStreams = kVecBytes == 64 && sizeof(T) >= 4;

template <class T>
DWCONV_INLINE void stream(T* p, Vec<Acc<T>> value) {
#if DWCONV_VEC_BYTES == 64
  _mm512_stream_si512(reinterpret_cast<__m512i*>(p), (__m512i)value);
#else
  store(p, value);
#endif
}
DWCONV_INLINE void end_of_streams() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

// Lane i from p[i*step], one element at a time.
template <class T>
static inline __attribute__((noinline)) Vec<Acc<T>> load_lanes(const T* p, int64_t step, Mask<Acc<T>> mask) {
  Acc<T> lane[kLanes<Acc<T>>] = {};
  for (int i = mask.lo(); i < mask.hi(); ++i) lane[i] = to_acc(p[i * step]);
  return load_bytes<Vec<Acc<T>>>(lane);
}

// Lane i to p[i*step], one element at a time.
template <class T>
static inline __attribute__((noinline)) void store_lanes(T* p, int64_t step, Vec<Acc<T>> value, Mask<Acc<T>> mask) {
  Acc<T> lane[kLanes<Acc<T>>];
  __builtin_memcpy(lane, &value, sizeof value);
  for (int i = mask.lo(); i < mask.hi(); ++i) from_acc(lane[i], &p[i * step]);
}

#if DWCONV_VEC_BYTES == 64
DWCONV_INLINE Vec<float> load(const float* p, Mask<float> m) {
  return (Vec<float>)_mm512_maskz_loadu_ps(__mmask16(m.bits), p);
}
DWCONV_INLINE Vec<double> load(const double* p, Mask<double> m) {
  return (Vec<double>)_mm512_maskz_loadu_pd(__mmask8(m.bits), p);
}
template <class T>
DWCONV_INLINE Vec<float> load(const T* p, Mask<float> m) {
  return widen((Half16)_mm256_maskz_loadu_epi16(__mmask16(m.bits), p), T{});
}
DWCONV_INLINE void store(float* p, Vec<float> v, Mask<float> m) {
  _mm512_mask_storeu_ps(p, __mmask16(m.bits), (__m512)v);
}
DWCONV_INLINE void store(double* p, Vec<double> v, Mask<double> m) {
  _mm512_mask_storeu_pd(p, __mmask8(m.bits), (__m512d)v);
}
template <class T>
DWCONV_INLINE void store(T* p, Vec<float> v, Mask<float> m) {
  _mm256_mask_storeu_epi16(p, __mmask16(m.bits), (__m256i)narrow(v, T{}));
}
#else
template <class T>
DWCONV_INLINE Vec<Acc<T>> load(const T* p, Mask<Acc<T>> m) {
#if DWCONV_VEC_BYTES == 32
  if constexpr (std::is_same_v<T, float>) return (Vec<float>)_mm256_maskload_ps(p, (__m256i)m.bits);
  if constexpr (std::is_same_v<T, double>) return (Vec<double>)_mm256_maskload_pd(p, (__m256i)m.bits);
#endif
  return __builtin_expect(m.full(), 1) ? load(p) : load_lanes(p, 1, m);
}
template <class T>
DWCONV_INLINE void store(T* p, Vec<Acc<T>> v, Mask<Acc<T>> m) {
  if (__builtin_expect(m.full(), 1)) return store(p, v);
  store_lanes(p, 1, v, m);
}
#endif

DWCONV_END_TARGET

#endif  // DWCONV_CPU_SIMD_VEC_H
