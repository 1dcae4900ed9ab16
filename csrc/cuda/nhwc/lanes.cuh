// What the tuned channels_last kernels share: lanes that are neighbours along C, with a vector of channels each.
#pragma once
#include <algorithm>

#include "../device/vector.cuh"
#include "../refusal.h"

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

// bfloat16 by pairs: one instruction each, where single ones take two.
template <class T, int V>
__device__ __forceinline__ void widen_vector(Vector<T, V>& vector, Accumulator<T> (&x)[V]) {
  if constexpr (__is_same(T, bf16) && V > 1) {
#pragma unroll
    for (int i = 0; i < V; i += 2) {
      union {
        unsigned bits;
        float value;
      } low, high;
      const unsigned pair = reinterpret_cast<const unsigned*>(vector.words)[i / 2];
      low.bits = pair << 16, high.bits = pair & 0xffff0000u;
      x[i] = low.value, x[i + 1] = high.value;
    }
  } else {
#pragma unroll
    for (int i = 0; i < V; ++i) x[i] = widen(vector[i]);
  }
}

}  // namespace dwconv::cuda
