// Sequences in float64, result by result, and how large their terms are: struct Sequence of csrc/kernel.h in loops.
#include <cmath>

#include "textbook.h"

namespace dwconv::test {
namespace {

// sequence and sequence_backward. With `sizes` each term counts by how large it may be.
std::vector<double> rows(Answer answer, const Shape& s, const Operands& o, bool sizes) {
  const int64_t most = s.pad_left;
  const bool active = o.activation != Activation::none;
  const auto of = [sizes](double value) { return sizes ? std::fabs(value) : value; };
  std::vector<double> values(size_t(size(answer, s)));
  for (int64_t i = 0; i < s.N * s.C * s.W; ++i) {
    const int64_t row = i / s.W, n = row / s.C, c = row % s.C, l = i % s.W;
    const int64_t reach = o.reach.empty() ? most : int64_t(o.reach[size_t(n * s.W + l)]);
    if (reach < 0) continue;
    // The position, or the state if it is negative, that tap k looks at; `most` positions before are the oldest state.
    const auto for_each_tap = [&](auto each) {
      for (int64_t k = 0; k < s.KW; ++k) {
        const int64_t back = (s.KW - 1 - k) * s.dilation_w;
        if (back <= reach) each(size_t(c * s.KW + k), l - back);
      }
    };
    // Null where there is neither: such a term is none.
    const auto source = [&](int64_t at) -> const double* {
      if (at >= 0) return &o.input[size_t(row * s.W + at)];
      return o.states.empty() ? nullptr : &o.states[size_t((row + 1) * most + at)];
    };
    double sum = of(o.bias[size_t(c)]);
    for_each_tap([&](size_t tap, int64_t at) {
      if (const double* x = source(at)) sum += of(o.weight[tap] * *x);
    });
    if (answer == Answer::sequence_output) {
      values[size_t(i)] = sizes ? sum : textbook_activation(sum, o.activation);
      continue;
    }
    // Before the activation. What its derivative may be off by grows with its argument.
    double gradient = of(o.grad_output[size_t(i)]);
    if (active) gradient *= sizes ? 1.2 + sum : textbook_derivative(sum, o.activation);
    if (answer == Answer::sequence_grad_bias) values[size_t(c)] += gradient;
    for_each_tap([&](size_t tap, int64_t at) {
      if (answer == Answer::sequence_grad_weight) {
        if (const double* x = source(at)) values[tap] += of(gradient * *x);
      }
      const double term = of(gradient * o.weight[tap]);
      if (answer == Answer::sequence_grad_input && at >= 0) values[size_t(row * s.W + at)] += term;
      if (answer == Answer::sequence_grad_states && at < 0) values[size_t((row + 1) * most + at)] += term;
    });
  }
  return values;
}

// sequence_step, which knows no dilation.
std::vector<double> step(Answer answer, const Shape& s, const Operands& o, bool sizes) {
  const int64_t length = cache_length(s), before = s.KW - 1;
  const auto of = [sizes](double value) { return sizes ? std::fabs(value) : value; };
  std::vector<double> cache = o.cache, output(size_t(input_size(s)));
  for (int64_t i = 0; i < s.N * s.C; ++i) {
    const int64_t n = i / s.C, c = i % s.C, row = o.rows.empty() ? n : int64_t(o.rows[size_t(n)]);
    if (row < 0) continue;
    // All that the cache holds, oldest first, and then the new positions.
    const bool is_ring = !o.begins.empty();
    const int64_t begin = is_ring ? (int64_t(o.begins[size_t(n)]) % length + length) % length : 0;
    double* const places = cache.data() + (row * s.C + c) * length;
    std::vector<double> line;
    for (int64_t p = 0; p < length; ++p) line.push_back(places[(begin + p) % length]);
    for (int64_t l = 0; l < s.W; ++l) line.push_back(o.input[size_t(i * s.W + l)]);
    for (int64_t l = 0; l < s.W; ++l) {
      double sum = of(o.bias[size_t(c)]);
      for (int64_t k = 0; k < s.KW; ++k) {
        sum += of(o.weight[size_t(c * s.KW + k)] * line[size_t(length + l - before + k)]);
      }
      output[size_t(i * s.W + l)] = sizes ? sum : textbook_activation(sum, o.activation);
    }
    // The last of the line stay: in a ring each of them where it was written.
    const int64_t first = is_ring ? begin + s.W : 0;
    for (int64_t p = 0; p < length; ++p) places[(first + p) % length] = line[size_t(s.W + p)];
  }
  return answer == Answer::sequence_step_cache ? cache : output;
}

std::vector<double> either(Answer answer, const Shape& s, const Operands& operands, bool sizes) {
  const bool is_step = answer == Answer::sequence_step_output || answer == Answer::sequence_step_cache;
  return is_step ? step(answer, s, operands, sizes) : rows(answer, s, operands, sizes);
}

}  // namespace

std::vector<double> sequence(Answer answer, const Shape& s, const Operands& operands) {
  return either(answer, s, operands, false);
}

std::vector<double> sequence_magnitudes(Answer answer, const Shape& s, const Operands& operands) {
  return either(answer, s, operands, true);
}

}  // namespace dwconv::test
