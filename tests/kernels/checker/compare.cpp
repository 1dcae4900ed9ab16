#include "compare.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "../calls/number.h"
#include "textbook.h"

namespace dwconv::test {
namespace {

// Long sums are kept in parts of some hundred terms, whose totals lose next to nothing more.
constexpr int64_t kPart = 2048;
// Share of the largest result that sums kept in float32 may be off by, before they are rounded to 16 bits.
constexpr double kAccumulation = 4e-6;
// Of the norm of all results.
constexpr double kNorm32 = 2e-6, kNorm64 = 1e-14;

double unit_of(DType dtype) {
  // float64 is held against sums in float64, which are off by as much.
  return format(dtype).accumulator_unit * (dtype == DType::f64 ? 2 : 1);
}

double lost_share(int64_t terms, DType dtype) { return double(std::min(terms, kPart) + 2) * unit_of(dtype); }

std::string number(double value) {
  char text[40];
  std::snprintf(text, sizeof text, "%.9g", value);
  return text;
}

}  // namespace

bool is_sixteen_bit(DType dtype) { return format(dtype).bytes == 2; }

Wanted exactly(std::vector<double> values, double scale, DType dtype) {
  for (double& value : values) value = round_once(value * scale, dtype);
  return {std::move(values), {}, 0};
}

Wanted within_bounds(const std::vector<double>& value, const std::vector<double>& magnitude, int64_t terms,
                     DType dtype) {
  // What a sum of so many terms of either sign comes to. Sums that happen to cancel are not held against it.
  const double typical = 1 / std::sqrt(double(std::max<int64_t>(terms, 1)));
  double squares = 0, typical_squares = 0, largest = 0;
  for (size_t i = 0; i < value.size(); ++i) {
    if (!std::isfinite(value[i])) continue;
    squares += value[i] * value[i];
    typical_squares += std::pow(typical * magnitude[i], 2);
    largest = std::max({largest, std::fabs(value[i]), typical * magnitude[i]});
  }
  Wanted wanted = {value, std::vector<double>(value.size()), 0};
  for (size_t i = 0; i < value.size(); ++i) {
    double lost = lost_share(terms, dtype) * magnitude[i];
    if (is_sixteen_bit(dtype)) lost = std::min(lost, kAccumulation * largest);
    if (std::isfinite(value[i])) wanted.allowed[i] = lost + half_unit(value[i], dtype);
  }
  // Errors of many results do not add up in one direction: far less than what is allowed to each.
  const double norm = std::sqrt(std::max(squares, typical_squares / 4));
  if (!is_sixteen_bit(dtype)) wanted.norm_bound = (dtype == DType::f32 ? kNorm32 : kNorm64) * norm + 0x1p-1000;
  return wanted;
}

Wanted activated(Problem& problem, Answer answer, DType dtype, Activation activation) {
  // Slopes are nowhere above 1.13. tests/kernels/test_activations.py has the bounds of each function.
  constexpr double kSlope = 1.13, kOwnUnits = 48;
  const double share = dtype == DType::f64 ? 0x1p-50 : 0x1p-36;
  const std::vector<double>&sums = problem.values(answer), &magnitude = problem.magnitudes(answer);
  Wanted wanted = {sums, std::vector<double>(sums.size()), 0};
  for (size_t i = 0; i < sums.size(); ++i) {
    const double right = textbook_activation(sums[i], activation);
    wanted.value[i] = right;
    // float64's exact values are themselves off by the condition of exp() and erfc().
    const double size = std::fabs(sums[i]);
    const double condition = dtype == DType::f64 ? kOwnUnits + std::pow(size, 3) : kOwnUnits;
    const double digits = activation == Activation::gelu && is_sixteen_bit(dtype) ? 0x1p-15 : 0;  // of its result
    const double own = (condition * unit_of(dtype) + digits) * std::fabs(right) + share * size;
    const double lost = kSlope * lost_share(problem.terms(answer), dtype) * magnitude[i];
    // Infinities and NaN must be just those, and so must what is made of them.
    const bool exact = !std::isfinite(sums[i]) || !std::isfinite(right);
    wanted.allowed[i] = exact ? 0 : lost + own + half_unit(right, dtype);
  }
  return wanted;
}

Wanted within_units(const std::vector<double>& values, const std::vector<double>& magnitudes, double units,
                    DType dtype) {
  Wanted wanted = {values, std::vector<double>(values.size()), 0};
  for (size_t i = 0; i < values.size(); ++i) {
    if (std::isfinite(values[i])) {
      wanted.allowed[i] = units * unit_of(dtype) * magnitudes[i] + half_unit(values[i], dtype);
    }
  }
  return wanted;
}

std::string difference(const std::vector<double>& values, const Wanted& wanted) {
  size_t wrong = 0, first = 0;
  double error_norm = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    const double value = values[i], right = wanted.value[i];
    const bool same = value == right || (std::isnan(value) && std::isnan(right));
    const double error = same ? 0 : value - right;
    error_norm += error * error;
    const bool good = same || (!wanted.allowed.empty() && std::fabs(error) <= wanted.allowed[i]);  // false for NaN
    if (!good && wrong++ == 0) first = i;
  }
  if (wrong) {
    return std::to_string(wrong) + " of " + std::to_string(values.size()) + " are wrong, element " +
           std::to_string(first) + " (NCHW) is " + number(values[first]) + ", not " + number(wanted.value[first]) +
           (wanted.allowed.empty() ? "" : " +- " + number(wanted.allowed[first]));
  }
  if (wanted.norm_bound > 0 && !(std::sqrt(error_norm) <= wanted.norm_bound)) {
    return "the norm of the error is " + number(std::sqrt(error_norm)) + ", not " + number(wanted.norm_bound);
  }
  return "";
}

}  // namespace dwconv::test
