// What the tuned channels_last kernels share: lanes that are neighbours along C, with a vector of channels each.
#pragma once
#include "pack.cuh"
#include "refusal.h"

namespace dwconv::cuda {

// Why a tuned kernel for K x K at stride S does not take the shape, or nullptr.
template <int K, int S>
inline const char* nhwc_refusal(const Shape& s) {
  if (const char* refusal = unit_refusal(s, K, S)) return refusal;
  if (std::max(s.W, s.OW * S) + 64 > int64_t(1) << 18) return "a row is too long for one launch";
  constexpr int64_t kLargest = int64_t(1) << 30;
  if (const char* refusal = size_refusal(s, S, s.C, kLargest, "an image is too large for 32-bit offsets")) {
    return refusal;
  }
  if (s.N * s.C > kMaxGridX) return "images and channels are too many for one launch";
  return nullptr;
}

// How many lanes share a pixel: 128 bytes of it or more, unless it has fewer, and as few as can be beyond its end.
template <class T>
inline int channel_lanes(int V, int64_t channels) {
  const int64_t vectors = channels / V;
  int best = 32;
  for (int n = 16; n > 0 && (n * V * int(sizeof(T)) >= 128 || n >= vectors); n /= 2) {
    if (ceil_div(vectors, n) * n < ceil_div(vectors, best) * best) best = n;
  }
  return best;
}

// N neighbours of shared memory, read anew at each call: the compiler must not keep them in registers.
template <int N>
__device__ __forceinline__ void load_shared(const float* address, float (&out)[N]) {
#if defined(DWCONV_EMULATED)
  ::emulator::check_aligned(address, sizeof(out));
  for (int i = 0; i < N; ++i) out[i] = address[i];
#else
  const unsigned shared = unsigned(__cvta_generic_to_shared(address));
  if constexpr (N == 4) {
    asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(out[0]), "=f"(out[1]), "=f"(out[2]), "=f"(out[3])
                 : "r"(shared));
  } else if constexpr (N == 2) {
    asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(out[0]), "=f"(out[1]) : "r"(shared));
  } else {
    asm volatile("ld.shared.f32 %0, [%1];" : "=f"(out[0]) : "r"(shared));
  }
#endif
}

// bfloat16 by pairs: one instruction each, where single ones take two.
template <class T, int V>
__device__ __forceinline__ void widen_pack(Pack<T, V>& pack, Accumulator<T> (&x)[V]) {
  if constexpr (__is_same(T, bf16) && V > 1) {
#pragma unroll
    for (int i = 0; i < V; i += 2) {
      union {
        unsigned bits;
        float value;
      } low, high;
      const unsigned pair = reinterpret_cast<const unsigned*>(pack.words)[i / 2];
      low.bits = pair << 16, high.bits = pair & 0xffff0000u;
      x[i] = low.value, x[i + 1] = high.value;
    }
  } else {
#pragma unroll
    for (int i = 0; i < V; ++i) x[i] = widen(pack[i]);
  }
}

}  // namespace dwconv::cuda
