// How far results may be from the right answers, and what is wrong with those that are further off.
#pragma once
#include <string>
#include <vector>

#include "problem.h"

namespace dwconv::test {

// What a buffer should hold, NCHW. Without `allowed` values must be equal, NaN for NaN; with it, each may be off by so
// much, and the norm of all errors may be `norm_bound` if that is not zero.
struct Wanted {
  std::vector<double> value, allowed;
  double norm_bound = 0;
};

// Integers: scaled and rounded once.
Wanted exactly(std::vector<double> values, double scale, DType dtype);

// Numbers with all their digits: what the order of summation may lose in the accumulator, and one rounding. Infinities
// and NaN must be just those.
Wanted within_bounds(const std::vector<double>& values, const std::vector<double>& magnitudes, int64_t terms,
                     DType dtype);

// Forward's sums followed by an activation, which may be off by some units of the accumulator itself.
Wanted activated(Problem& problem, Answer answer, DType dtype, Activation activation);

// Within so many units of rounding of their magnitudes.
Wanted within_units(const std::vector<double>& values, const std::vector<double>& magnitudes, double units,
                    DType dtype);

// What BatchNorm's operations may lose, and an activation or its derivative.
constexpr double kUnits = 24;

// Empty, or what is wrong first. `got` is NCHW.
std::string difference(const std::vector<double>& got, const Wanted& wanted);

bool is_sixteen_bit(DType dtype);

}  // namespace dwconv::test
