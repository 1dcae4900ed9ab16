// What kernels read and write: how many numbers, and in which order they lie in memory.
//
// Everywhere but in the buffers of a call, numbers are float64 and images are NCHW.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernel.h"

namespace dwconv::test {

struct Operands {
  std::vector<double> input, weight, bias, grad_output;
};

// The numbers that kernels compute.
enum class Answer { output, output_with_bias, grad_input, grad_weight, grad_bias };

inline int64_t input_size(const Shape& s) { return s.N * s.C * s.H * s.W; }
inline int64_t weight_size(const Shape& s) { return s.out_channels() * s.taps(); }
inline int64_t output_size(const Shape& s) { return s.N * s.out_channels() * s.OH * s.OW; }

inline int64_t size(Answer answer, const Shape& s) {
  switch (answer) {
    case Answer::output:
    case Answer::output_with_bias: return output_size(s);
    case Answer::grad_input: return input_size(s);
    case Answer::grad_weight: return weight_size(s);
    case Answer::grad_bias: return s.out_channels();
  }
  return 0;
}

// What one of the buffers that an operation writes is called in Buffers, and what it holds.
struct Output {
  const char* name;
  Answer answer;
};
std::vector<Output> outputs(Operation operation, bool with_bias);

// An operand that an operation reads, by its name in Buffers.
struct Input {
  const char* name;
  std::vector<double> Operands::* values;
};
std::vector<Input> inputs(Operation operation, bool with_bias);

// NCHW numbers as they lie in memory in the layout; filters and biases lie the same way in both.
std::vector<double> in_layout(const std::vector<double>& values, Answer answer, Layout layout, const Shape& s);
std::vector<double> in_layout(const std::vector<double>& values, const Input& input, Layout layout, const Shape& s);
// And back.
std::vector<double> from_layout(const std::vector<double>& stored, Answer answer, Layout layout, const Shape& s);

}  // namespace dwconv::test
