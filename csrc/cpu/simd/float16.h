// bf16 and f16 as storage types: two bytes, converted to f32 to compute and rounded once (to nearest, ties to even) to
// store. Scalar, for every ISA: vec.h has the vector forms. Functions are static, so that a copy compiled for a newer
// ISA can never be the one that the linker keeps for an older machine.
#pragma once
#include <cstdint>
#include <cstring>

namespace dwconv {

struct bf16 {
  uint16_t bits;
};
struct f16 {
  uint16_t bits;
};

static inline float float_from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

static inline uint32_t bits_from_float(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

static inline float to_float(bf16 value) { return float_from_bits(uint32_t(value.bits) << 16); }

static inline float to_float(f16 value) {
  const uint32_t sign = uint32_t(value.bits & 0x8000u) << 16;
  uint32_t bits = uint32_t(value.bits & 0x7fffu) << 13;
  const uint32_t exponent = bits & 0x0f800000u;
  bits += 112u << 23;  // rebias: 127 - 15
  if (exponent == 0x0f800000u) {
    bits += 112u << 23;  // infinity or NaN
  } else if (exponent == 0) {
    bits = bits_from_float(float_from_bits(bits + (1u << 23)) - float_from_bits(113u << 23));  // zero or subnormal
  }
  return float_from_bits(bits | sign);
}

static inline bf16 to_bf16(float value) {
  const uint32_t bits = bits_from_float(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {uint16_t((bits >> 16) | 0x40u)};  // keep NaN a quiet NaN
  return {uint16_t((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

static inline f16 to_f16(float value) {
  const uint32_t all = bits_from_float(value);
  const uint32_t sign = (all >> 16) & 0x8000u;
  uint32_t bits = all & 0x7fffffffu;
  if (bits > 0x7f800000u) return {uint16_t(sign | 0x7e00u | ((bits >> 13) & 0x3ffu))};
  if (bits >= 0x477ff000u) return {uint16_t(sign | 0x7c00u)};  // 65520 and above round to infinity
  if (bits < (113u << 23)) {                                   // subnormal: let an f32 addition do the rounding
    return {uint16_t(sign | (bits_from_float(float_from_bits(bits) + 0.5f) - bits_from_float(0.5f)))};
  }
  bits += 0xc8000fffu + ((bits >> 13) & 1u);
  return {uint16_t(sign | (bits >> 13))};
}

static inline float to_float(float value) { return value; }

// The type a sum of T is kept in.
template <class T>
struct accumulator {
  using type = float;
};
template <>
struct accumulator<double> {
  using type = double;
};

}  // namespace dwconv
