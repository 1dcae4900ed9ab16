// Loops that do nothing but reach one limit of the machine, for one target.
//
// Buffers are aligned to 64 bytes and sizes are multiples of 64 bytes.
#if defined(DWCONV_PROBE_LOOPS_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_PROBE_LOOPS_H
#undef DWCONV_PROBE_LOOPS_H
#else
#define DWCONV_PROBE_LOOPS_H
#endif

#include "../cpu/simd/target.h"
#include "probe.h"

DWCONV_BEGIN_TARGET

template <typename T>
struct VecOf {
  typedef T type __attribute__((vector_size(DWCONV_VEC_BYTES)));
};

// 12 independent chains hide the latency of 4 cycles on two ports and leave registers for the operands.
constexpr int kChains = 12;

// Returns the FLOPs done: a multiply and an add an element, whether or not the ISA fuses them.
template <typename T>
double fma_loop(int64_t iterations) {
  using Vec = typename VecOf<T>::type;
  // Neither constant for the compiler nor denormal for the machine: every sum approaches 2, each from its own start.
  volatile T half = T(0.5), one = T(1);
  const Vec factor = Vec{} + half, term = Vec{} + one;
  Vec sums[kChains];
  for (int chain = 0; chain < kChains; ++chain) sums[chain] = term * T(chain);
  for (int64_t i = 0; i < iterations; ++i) {
#pragma GCC unroll 12
    for (int chain = 0; chain < kChains; ++chain) sums[chain] = sums[chain] * factor + term;
  }
  Vec total = {};
  for (const Vec& sum : sums) total += sum;
  volatile T sink = total[0];
  (void)sink;
  return 2.0 * double(iterations) * kChains * DWCONV_VEC_BYTES / sizeof(T);
}

using Bytes = VecOf<int64_t>::type;

inline void stream_store(Bytes* to, Bytes value) {
#if DWCONV_VEC_BYTES == 64
  _mm512_stream_si512(reinterpret_cast<__m512i*>(to), reinterpret_cast<__m512i>(value));
#elif DWCONV_VEC_BYTES == 32
  _mm256_stream_si256(reinterpret_cast<__m256i*>(to), reinterpret_cast<__m256i>(value));
#elif defined(__SSE2__)
  _mm_stream_si128(reinterpret_cast<__m128i*>(to), reinterpret_cast<__m128i>(value));
#else
  *to = value;
#endif
}

// What compilers must not take for memcpy and memset, which are measured by themselves.
inline void keep_loop() { asm volatile("" ::: "memory"); }

template <bool non_temporal>
void copy_loop(void* to, const void* from, int64_t bytes) {
  Bytes* target = static_cast<Bytes*>(to);
  const Bytes* source = static_cast<const Bytes*>(from);
  for (int64_t i = 0, count = bytes / DWCONV_VEC_BYTES; i < count; ++i) {
    if constexpr (non_temporal) {
      stream_store(target + i, source[i]);
    } else {
      target[i] = source[i];
    }
    keep_loop();
  }
}

template <bool non_temporal>
void fill_loop(void* to, int64_t bytes) {
  Bytes* target = static_cast<Bytes*>(to);
  const Bytes value = {1};
  for (int64_t i = 0, count = bytes / DWCONV_VEC_BYTES; i < count; ++i) {
    if constexpr (non_temporal) {
      stream_store(target + i, value);
    } else {
      target[i] = value;
    }
    keep_loop();
  }
}

inline void read_loop(const void* from, int64_t bytes) {
  const Bytes* source = static_cast<const Bytes*>(from);
  const int64_t count = bytes / DWCONV_VEC_BYTES;
  Bytes bits[4] = {};
  int64_t i = 0;
  for (; i + 4 <= count; i += 4) {
#pragma GCC unroll 4
    for (int chain = 0; chain < 4; ++chain) bits[chain] |= source[i + chain];
  }
  for (; i < count; ++i) bits[0] |= source[i];
  volatile int64_t sink = (bits[0] | bits[1] | bits[2] | bits[3])[0];
  (void)sink;
}

constexpr Loops loops = {
    {&fma_loop<float>, &fma_loop<double>},
    {&copy_loop<false>, &copy_loop<true>},
    {&fill_loop<false>, &fill_loop<true>},
    &read_loop,
};

DWCONV_END_TARGET

#endif  // DWCONV_PROBE_LOOPS_H
