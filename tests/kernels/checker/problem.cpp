#include "problem.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "../calls/random.h"

namespace dwconv::test {
namespace {

// The largest integers, up to 63, whose products add up to less than 2^23 in every operation of a kind.
int64_t larger(const Shape& s, Kind kind) {
  const int64_t of_depthwise = std::max(s.M * s.taps(), s.N * s.OH * s.OW), of_dense = s.C * s.taps() + 1;
  const int64_t of_pointwise = std::max({s.C + 1, s.M, s.N * s.H * s.W});
  const int64_t of_channel = kind == Kind::batch_norm ? s.N * s.H * s.W : s.H * s.W;
  const bool of_taps = kind == Kind::depthwise || kind == Kind::sequence;
  const int64_t sum = of_taps                   ? of_depthwise
                      : kind == Kind::pointwise ? of_pointwise
                      : kind == Kind::dense     ? of_dense
                                                : of_channel;
  const int64_t terms = std::max<int64_t>(sum, 1) + 1;
  int64_t value = 63;
  while (value > 4 && value * value * terms > 1 << 23) --value;
  return value;
}

double draw_one(Random& random, Data data, int64_t largest) {
  switch (data) {
    case Data::integers:
    case Data::larger:
    case Data::special:
    case Data::special_input:
    case Data::special_weight:
    case Data::special_grad_output: {
      const auto value = double(random.between(-largest, largest));
      return value == 0 && random.chance(2) ? -0.0 : value;
    }
    // Sums of uniform numbers stand in for a bell curve.
    case Data::normal: return double(float(random.unit() + random.unit() + random.unit() + random.unit() - 2));
    case Data::eight_bits: return double(random.between(-63, 63) + random.between(-63, 63)) / 64;
    case Data::positive: return double(float(random.unit()));
    case Data::offset: return double(float(999 + 2 * random.unit()));
  }
  return 0;
}

double special_value(Random& random) {
  const double infinity = std::numeric_limits<double>::infinity();
  return random.pick({std::numeric_limits<double>::quiet_NaN(), infinity, -infinity});
}

// Puts a special value into a share of the planes of `height` x `width`, half of them at an end of a row or a column.
void poison(std::vector<double>& values, int64_t height, int64_t width, double share, Random& random) {
  const int64_t plane = height * width;
  for (int64_t first = 0; plane > 0 && first < int64_t(values.size()); first += plane) {
    if (random.unit() >= share) continue;
    const auto place = [&](int64_t size) {
      return random.pick({int64_t(0), size - 1, random.between(0, size - 1), random.between(0, size - 1)});
    };
    const int64_t row = place(height), column = place(width);
    values[size_t(first + row * width + column)] = special_value(random);
  }
}

// Puts a special value into one channel of a share of the pixels.
void poison_pixels(std::vector<double>& values, int64_t channels, int64_t plane, double share, Random& random) {
  if (channels == 0) return;
  for (int64_t first = 0; first < int64_t(values.size()); first += channels * plane) {
    for (int64_t pixel = 0; pixel < plane; ++pixel) {
      if (random.unit() >= share) continue;
      values[size_t(first + random.between(0, channels - 1) * plane + pixel)] = special_value(random);
    }
  }
}

constexpr double kMost = 0.75;

void poison_depthwise(Operands& operands, const Shape& s, Data data, Random& random) {
  if (data == Data::special_input) poison(operands.input, s.H, s.W, kMost, random);
  if (data == Data::special_weight) poison(operands.weight, s.KH, s.KW, kMost, random);
  if (data == Data::special_grad_output) poison(operands.grad_output, s.OH, s.OW, kMost, random);
  if (data != Data::special) return;
  const int64_t which = random.between(1, 15);
  if (which & 1) poison(operands.input, s.H, s.W, 1.0 / 3, random);
  if (which & 2) poison(operands.weight, s.KH, s.KW, 1.0 / 4, random);
  if (which & 4) poison(operands.grad_output, s.OH, s.OW, 1.0 / 3, random);
  if (which & 8) poison(operands.bias, 1, 1, 1.0 / 6, random);
}

void poison_dense(Operands& operands, const Shape& s, Data data, Random& random) {
  if (data == Data::special_input) poison_pixels(operands.input, s.C, s.H * s.W, 1.0 / 3, random);
  if (data == Data::special_weight) poison(operands.weight, s.C, s.taps(), kMost, random);  // one of an output's filter
  if (data != Data::special) return;
  const int64_t which = random.between(1, 15);
  if (which & 1) poison_pixels(operands.input, s.C, s.H * s.W, 1.0 / 8, random);
  if (which & 2) poison(operands.weight, s.C, s.taps(), 1.0 / 4, random);
  if (which & 4) poison_pixels(operands.residual, s.M, s.OH * s.OW, 1.0 / 3, random);
  if (which & 8) poison(operands.bias, 1, 1, 1.0 / 6, random);
}

void poison_pointwise(Operands& operands, const Shape& s, Data data, Random& random) {
  if (data == Data::special_input) poison_pixels(operands.input, s.C, s.H * s.W, 1.0 / 8, random);
  if (data == Data::special_weight) poison(operands.weight, s.C, 1, 1.0 / 3, random);
  if (data == Data::special_grad_output) poison_pixels(operands.grad_output, s.M, s.OH * s.OW, 1.0 / 8, random);
  if (data != Data::special) return;
  const int64_t which = random.between(1, 15);
  if (which & 1) poison(operands.input, s.H, s.W, 1.0 / 8, random);
  if (which & 2) poison(operands.weight, s.C, 1, 1.0 / 8, random);
  if (which & 4) poison(operands.grad_output, s.OH, s.OW, 1.0 / 8, random);
  if (which & 8) poison(operands.bias, 1, 1, 1.0 / 6, random);
}

void poison_channelwise(Operands& operands, const Shape& s, Data data, Random& random) {
  if (data == Data::special_input) poison_pixels(operands.input, s.C, s.H * s.W, 1.0 / 3, random);
  if (data != Data::special) return;
  poison(operands.input, s.H, s.W, 1.0 / 4, random);
  if (random.chance(2)) poison(operands.scale, 1, 1, 1.0 / 6, random);
}

// One of the two operands: an infinite input has no finite deviation, and infinite gradients of both signs no sum.
void poison_batch_norm(Operands& operands, const Shape& s, Data data, Random& random) {
  if (data == Data::special_input) poison(operands.input, s.H, s.W, 1.0 / 3, random);
  if (data == Data::special_grad_output) poison(operands.grad_output, s.H, s.W, 1.0 / 3, random);
}

void poison_sequence(Operands& operands, const Shape& s, Data data, Random& random) {
  if (data == Data::special_input) poison(operands.input, 1, s.W, kMost, random);
  if (data == Data::special_weight) poison(operands.weight, 1, s.KW, kMost, random);
  if (data == Data::special_grad_output) poison(operands.grad_output, 1, s.W, kMost, random);
  if (data != Data::special) return;
  const int64_t which = random.between(1, 31);
  if (which & 1) poison(operands.input, 1, s.W, 1.0 / 3, random);
  if (which & 2) poison(operands.weight, 1, s.KW, 1.0 / 4, random);
  if (which & 4) poison(operands.grad_output, 1, s.W, 1.0 / 3, random);
  if (which & 8) poison(operands.bias, 1, 1, 1.0 / 6, random);
  if (which & 16) {
    poison(operands.states, 1, s.pad_left, 1.0 / 3, random);
    poison(operands.cache, 1, cache_length(s), 1.0 / 3, random);
  }
}

// How far the results of an image look back where several sequences share its row, some of which are padding; or numbers
// without any order.
void draw_reach(std::vector<double>& reach, const Shape& s, Random& random) {
  const bool is_ordered = !random.chance(4);
  int64_t left = 0, before = s.pad_left;  // of a sequence: positions, and how far its next one looks back
  for (int64_t l = 0; l < s.W; ++l) {
    if (!is_ordered) {
      reach.push_back(double(random.between(-1, s.pad_left)));
      continue;
    }
    if (left == 0) {
      left = random.pick({random.between(1, 5), random.between(1, s.W), s.W});
      before = random.chance(6) ? -1 : l == 0 ? s.pad_left : 0;
    }
    reach.push_back(double(before));
    if (before >= 0) before = std::min(before + 1, s.pad_left);
    --left;
  }
}

// Rows in any order, none twice, some of them padding; rings that begin anywhere, of one position or more.
void draw_rows(Operands& operands, const Shape& s, Random& random) {
  std::vector<int64_t> rows;
  for (int64_t row = 0; row < cache_rows(s); ++row) rows.push_back(row);
  for (int64_t n = 0; n < s.N; ++n) {
    std::swap(rows[size_t(n)], rows[size_t(random.between(n, cache_rows(s) - 1))]);
    operands.rows.push_back(random.chance(4) ? -double(random.between(1, 3)) : double(rows[size_t(n)]));
    if (cache_length(s) == 0) continue;
    operands.begins.push_back(double(random.pick({random.between(0, 9), random.between(-9, INT32_MAX)})));
  }
}

bool is_integer(Data data) {
  return data != Data::normal && data != Data::eight_bits && data != Data::positive && data != Data::offset;
}

}  // namespace

const char* name(Data data) {
  constexpr const char* names[] = {
      "integers", "larger",     "special",  "special_input", "special_weight", "special_grad_output",
      "normal",   "eight_bits", "positive", "offset"};
  return names[int(data)];
}

Operands draw(const Shape& s, Kind kind, Data data, uint64_t seed) {
  Random random(seed, {uint64_t(data)});
  const int64_t largest = data == Data::larger ? larger(s, kind) : 4;
  Operands operands;
  const auto fill = [&](std::vector<double>& values, int64_t size) {
    values.resize(size_t(size));
    for (double& value : values) value = draw_one(random, data, largest);
  };
  fill(operands.input, input_size(s));
  switch (kind) {
    case Kind::depthwise:
      fill(operands.weight, weight_size(s));
      fill(operands.bias, s.out_channels());
      fill(operands.grad_output, output_size(s));
      poison_depthwise(operands, s, data, random);
      break;
    case Kind::dense:
      fill(operands.weight, weight_size(s));
      fill(operands.bias, s.M);
      fill(operands.residual, dense_size(s));
      poison_dense(operands, s, data, random);
      break;
    case Kind::channelwise:
      fill(operands.scale, s.N * s.C);
      operands.epsilon = double(random.pick({1e-6f, 1e-5f, 1e-3f, 1.0f}));
      poison_channelwise(operands, s, data, random);
      break;
    case Kind::batch_norm:
      fill(operands.weight, s.C);
      fill(operands.bias, s.C);
      fill(operands.grad_output, input_size(s));
      fill(operands.mean, s.C);
      // Of integers 1 / sqrt(variance + epsilon) is 1, 1/2 or 1/4, so that results are exact.
      operands.epsilon = is_integer(data) ? 1 : double(random.pick({1e-6f, 1e-5f, 1e-3f, 1.0f}));
      for (int64_t c = 0; c < s.C; ++c) {
        const double drawn = double(float(0.05 + 2 * random.unit()));
        operands.variance.push_back(is_integer(data) ? random.pick({0.0, 3.0, 15.0}) : drawn);
      }
      poison_batch_norm(operands, s, data, random);
      break;
    case Kind::pointwise:
      fill(operands.weight, weight_size(s));
      fill(operands.bias, s.M);
      fill(operands.grad_output, dense_size(s));
      poison_pointwise(operands, s, data, random);
      break;
    case Kind::sequence:
      fill(operands.weight, weight_size(s));
      fill(operands.bias, s.C);
      fill(operands.grad_output, input_size(s));
      fill(operands.states, states_size(s));
      fill(operands.cache, cache_size(s));
      poison_sequence(operands, s, data, random);
      for (int64_t n = 0; n < s.N; ++n) draw_reach(operands.reach, s, random);
      draw_rows(operands, s, random);
      break;
  }
  return operands;
}

const std::vector<double>& Problem::values(Answer answer) {
  const auto found = values_.find(answer);
  if (found != values_.end()) return found->second;
  return values_[answer] = oracle_(answer, shape_, operands_);
}

const std::vector<double>& Problem::magnitudes(Answer answer) {
  const auto found = magnitudes_.find(answer);
  if (found != magnitudes_.end()) return found->second;
  if (answer == Answer::layer_norm) {
    // Deviations, in units of the standard deviation, whose sums are of order 1.
    std::vector<double> sizes = values(answer);
    for (double& size : sizes) size = 1 + std::fabs(size);
    return magnitudes_[answer] = std::move(sizes);
  }
  if (absolute_.input.empty()) {
    absolute_ = operands_;
    for (auto* values : {&absolute_.input, &absolute_.weight, &absolute_.bias, &absolute_.grad_output,
                         &absolute_.residual, &absolute_.scale}) {
      for (double& value : *values) value = std::fabs(value);
    }
  }
  return magnitudes_[answer] = oracle_(answer, shape_, absolute_);
}

int64_t Problem::terms(Answer answer) const {
  switch (answer) {
    case Answer::output: return shape_.taps();
    case Answer::output_with_bias: return shape_.taps() + 1;
    case Answer::grad_input: return shape_.M * shape_.taps();
    case Answer::grad_weight:
    case Answer::grad_bias: return shape_.N * shape_.OH * shape_.OW;
    case Answer::dense: return shape_.C * shape_.taps();
    case Answer::dense_with_bias:
    case Answer::dense_with_residual: return shape_.C * shape_.taps() + 1;
    case Answer::dense_with_both: return shape_.C * shape_.taps() + 2;
    case Answer::pointwise_output: return shape_.C;
    case Answer::pointwise_output_with_bias: return shape_.C + 1;
    case Answer::pointwise_grad_input: return shape_.M;
    case Answer::layer_norm: return shape_.C;
    case Answer::channel_scale: return 1;
    case Answer::channel_sum: return shape_.H * shape_.W;
    case Answer::sequence_output:
    case Answer::sequence_step_output: return shape_.taps() + 1;
    case Answer::sequence_grad_input:
    case Answer::sequence_grad_states: return shape_.taps();
    default: return shape_.N * shape_.H * shape_.W;  // of BatchNorm, of other parameters
  }
  return 0;
}

}  // namespace dwconv::test
