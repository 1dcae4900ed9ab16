// __half and __nv_bfloat16 for the emulator, so that it needs no CUDA toolkit: storage, and the conversions that kernels
// use. Both round to nearest even and keep subnormal numbers, infinities and NaN, as the device's do.
#pragma once
#include <bit>
#include <cstdint>

struct __half {
  uint16_t bits;
};
struct __nv_bfloat16 {
  uint16_t bits;
};

inline float __bfloat162float(__nv_bfloat16 v) { return std::bit_cast<float>(uint32_t(v.bits) << 16); }

inline __nv_bfloat16 __float2bfloat16_rn(float v) {
  const uint32_t bits = std::bit_cast<uint32_t>(v);
  if ((bits & 0x7fffffff) > 0x7f800000) return {0x7fff};
  return {uint16_t((uint64_t(bits) + 0x7fff + ((bits >> 16) & 1)) >> 16)};
}

inline float __half2float(__half v) { return float(std::bit_cast<_Float16>(v.bits)); }

inline __half __float2half_rn(float v) { return {std::bit_cast<uint16_t>(_Float16(v))}; }
