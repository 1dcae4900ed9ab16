#include "number.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace dwconv::test {

const Format& format(DType dtype) {
  static constexpr Format formats[] = {{4, 23, -126, 127, 0x1p-24},
                                       {8, 52, -1022, 1023, 0x1p-53},
                                       {2, 7, -126, 127, 0x1p-24},
                                       {2, 10, -14, 15, 0x1p-24}};
  return formats[int(dtype)];
}

namespace {

// Exponent of the unit in the last place at a value that is neither zero nor infinite nor NaN.
int unit_exponent(double value, const Format& f) { return std::max(std::ilogb(value), f.least) - f.digits; }

}  // namespace

double round_once(double value, DType dtype) {
  if (dtype == DType::f64 || value == 0 || !std::isfinite(value)) return value;
  const Format& f = format(dtype);
  const int unit = unit_exponent(value, f);
  const double rounded = std::ldexp(std::nearbyint(std::ldexp(value, -unit)), unit);
  return std::fabs(rounded) < std::ldexp(1.0, f.largest + 1)
             ? rounded
             : std::copysign(std::numeric_limits<double>::infinity(), value);
}

double half_unit(double value, DType dtype) {
  const Format& f = format(dtype);
  return std::ldexp(0.5, value == 0 ? f.least - f.digits : unit_exponent(value, f));
}

void store(double value, DType dtype, uint8_t* p) {
  if (dtype == DType::f64) {
    std::memcpy(p, &value, 8);
    return;
  }
  const float single = float(value);
  uint32_t bits;
  std::memcpy(&bits, &single, 4);
  if (dtype == DType::f32) {
    std::memcpy(p, &bits, 4);
    return;
  }
  uint16_t half = uint16_t(bits >> 16);
  if (dtype == DType::f16) {
    const double size = std::fabs(value);
    half = std::signbit(value) ? 0x8000 : 0;
    if (std::isnan(value)) {
      half |= 0x7e00;
    } else if (std::isinf(value)) {
      half |= 0x7c00;
    } else if (size < 0x1p-14) {
      half |= uint16_t(std::ldexp(size, 24));
    } else {
      const int exponent = std::ilogb(size);
      half |= uint16_t((exponent + 15) * 1024 + int(std::ldexp(size, 10 - exponent)) - 1024);
    }
  }
  std::memcpy(p, &half, 2);
}

double load(const uint8_t* p, DType dtype) {
  if (dtype == DType::f64) {
    double value;
    std::memcpy(&value, p, 8);
    return value;
  }
  if (dtype == DType::f32) {
    float value;
    std::memcpy(&value, p, 4);
    return double(value);
  }
  uint16_t half;
  std::memcpy(&half, p, 2);
  if (dtype == DType::bf16) {
    const uint32_t bits = uint32_t(half) << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return double(value);
  }
  const int exponent = half >> 10 & 31, digits = half & 1023;
  double size = exponent == 0 ? std::ldexp(digits, -24) : std::ldexp(1024 + digits, exponent - 25);
  if (exponent == 31) {
    size = digits ? std::numeric_limits<double>::quiet_NaN() : std::numeric_limits<double>::infinity();
  }
  return half & 0x8000 ? -size : size;
}

}  // namespace dwconv::test
