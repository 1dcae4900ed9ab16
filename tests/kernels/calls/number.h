// The dtypes seen from float64: rounding, storing and reading back. By arithmetic on values, not by the bit tricks of
// csrc/cpu/simd/float16.h and vec.h, so that those are tested too.
#pragma once
#include <cstddef>
#include <cstdint>

#include "kernel.h"

namespace dwconv::test {

struct Format {
  size_t bytes;
  int digits;               // after the leading one
  int least, largest;       // exponents of the smallest normal number and of the largest number
  double accumulator_unit;  // half a unit in the last place of 1 in the type that sums are kept in
};

const Format& format(DType dtype);

// The nearest number of the dtype, ties to even; infinite if that is too large for it.
double round_once(double value, DType dtype);

// Half the distance between neighbours of the dtype at `value`: the largest error of one rounding.
double half_unit(double value, DType dtype);

// `value` must be a number of the dtype.
void store(double value, DType dtype, uint8_t* p);
double load(const uint8_t* p, DType dtype);

}  // namespace dwconv::test
