#include "problem.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace dwconv::test {
namespace {

// The largest integers, up to 63, whose products add up to less than 2^23 in every operation.
int64_t larger(const Shape& s) {
  const int64_t terms = std::max({s.M * s.taps(), s.N * s.OH * s.OW, int64_t(1)}) + 1;
  int64_t value = 63;
  while (value > 4 && value * value * terms > 1 << 23) --value;
  return value;
}

double draw(Random& random, Data data, int64_t largest) {
  switch (data) {
    case Data::integers:
    case Data::larger:
    case Data::special: {
      const auto value = double(random.between(-largest, largest));
      return value == 0 && random.chance(2) ? -0.0 : value;
    }
    // Sums of uniform numbers stand in for a bell curve.
    case Data::normal: return double(float(random.unit() + random.unit() + random.unit() + random.unit() - 2));
    case Data::eight_bits: return double(random.between(-63, 63) + random.between(-63, 63)) / 64;
  }
  return 0;
}

double special_value(Random& random) {
  const double infinity = std::numeric_limits<double>::infinity();
  return random.pick({std::numeric_limits<double>::quiet_NaN(), infinity, -infinity});
}

// Puts a special value into some of the planes of `height` x `width`, half of them at an end of a row or a column.
void poison(std::vector<double>& values, int64_t height, int64_t width, int64_t one_in, Random& random) {
  const int64_t plane = height * width;
  for (int64_t first = 0; plane > 0 && first < int64_t(values.size()); first += plane) {
    if (!random.chance(one_in)) continue;
    const auto place = [&](int64_t size) {
      return random.pick({int64_t(0), size - 1, random.between(0, size - 1), random.between(0, size - 1)});
    };
    const int64_t row = place(height), column = place(width);
    values[size_t(first + row * width + column)] = special_value(random);
  }
}

}  // namespace

Problem::Problem(const Shape& s, Data data, uint64_t seed) : shape_(s) {
  Random random(seed, {uint64_t(data)});
  const int64_t largest = data == Data::larger ? larger(s) : 4;
  const auto fill = [&](std::vector<double>& values, int64_t size) {
    values.resize(size_t(size));
    for (double& value : values) value = draw(random, data, largest);
  };
  fill(operands_.input, input_size(s));
  fill(operands_.weight, weight_size(s));
  fill(operands_.bias, s.out_channels());
  fill(operands_.grad_output, output_size(s));
  if (data != Data::special) return;
  // Each operand by itself as often as with others, so that what one of them must not reach is seen.
  const int64_t which = random.between(1, 15);
  if (which & 1) poison(operands_.input, s.H, s.W, 3, random);
  if (which & 2) poison(operands_.weight, s.KH, s.KW, 4, random);
  if (which & 4) poison(operands_.grad_output, s.OH, s.OW, 3, random);
  if (which & 8) poison(operands_.bias, 1, 1, 6, random);
}

const Expected& Problem::expected(Operation operation, bool with_bias) {
  const auto found = expected_.find({operation, with_bias});
  if (found != expected_.end()) return found->second;
  if (plain_.count(operation) == 0) plain_[operation] = textbook(operation, shape_, operands_);
  Expected expected = {plain_[operation], std::nullopt, shape_.taps() + 1};
  if (operation == Operation::grad_input) expected.terms = shape_.M * shape_.taps();
  if (operation == Operation::grad_weight) expected.terms = shape_.N * shape_.OH * shape_.OW;
  if (operation == Operation::forward && with_bias) add_bias(shape_, operands_.bias, expected.result);
  if (operation == Operation::grad_weight && with_bias)
    expected.grad_bias = textbook_grad_bias(shape_, operands_.grad_output);
  return expected_.emplace(std::pair(operation, with_bias), std::move(expected)).first->second;
}

}  // namespace dwconv::test
