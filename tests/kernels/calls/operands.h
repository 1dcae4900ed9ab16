// What kernels read and write: how many numbers, and in which order they lie in memory.
//
// Everywhere but in the buffers of a call, numbers are float64 and images are NCHW.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernel.h"

namespace dwconv::test {

// Which operations a shape is for: those of a kind share its sizes and its operands. The shape of a channelwise one has
// results as its input has pixels, and M and the filter are 1; that of BatchNorm too. That of a pointwise one has results
// as its input has pixels. That of sequences is csrc/kernel.h's.
enum class Kind { depthwise, dense, channelwise, batch_norm, pointwise, sequence };
constexpr Kind kKinds[] = {Kind::depthwise,  Kind::dense,     Kind::channelwise,
                           Kind::batch_norm, Kind::pointwise, Kind::sequence};
const char* name(Kind kind);

struct Operands {
  std::vector<double> input, weight, bias, grad_output;  // weight of dense and pointwise: (M, C, KH, KW)
  std::vector<double> residual, scale;
  double epsilon = 0;
  std::vector<double> mean, variance;        // of BatchNorm, whose weight is (C,)
  Activation activation = Activation::none;  // of BatchNorm and sequences: gradients depend on it
  // Of sequences, empty where they are not given: (N, C, R), and what struct Sequence calls so, of which all but the cache
  // are integers. The cache is (cache_rows, C, cache_length), and so is the one with the new positions.
  std::vector<double> states, reach, cache, rows, begins;
};

// The numbers that kernels compute: dense_* with bias, with residual, with both.
enum class Answer {
  output,
  output_with_bias,
  grad_input,
  grad_weight,
  grad_bias,
  dense,
  dense_with_bias,
  dense_with_residual,
  dense_with_both,
  layer_norm,
  channel_scale,
  channel_sum,
  batch_norm_output,
  batch_norm_mean,
  batch_norm_variance,
  batch_norm_eval_output,
  batch_norm_grad_input,
  batch_norm_grad_weight,
  batch_norm_grad_bias,
  batch_norm_eval_grad_input,
  pointwise_output,
  pointwise_output_with_bias,
  pointwise_grad_input,
  pointwise_grad_weight,
  sequence_output,
  sequence_grad_input,
  sequence_grad_weight,
  sequence_grad_bias,
  sequence_grad_states,
  sequence_step_output,
  sequence_step_cache
};
constexpr int kAnswers = int(Answer::sequence_step_cache) + 1;
const char* name(Answer answer);

inline Kind kind_of(Answer answer) {
  return answer < Answer::dense               ? Kind::depthwise
         : answer < Answer::layer_norm        ? Kind::dense
         : answer < Answer::batch_norm_output ? Kind::channelwise
         : answer < Answer::pointwise_output  ? Kind::batch_norm
         : answer < Answer::sequence_output   ? Kind::pointwise
                                              : Kind::sequence;
}
inline Kind kind_of(Operation operation) {
  return operation < Operation::dense        ? Kind::depthwise
         : operation == Operation::dense     ? Kind::dense
         : operation < Operation::batch_norm ? Kind::channelwise
         : operation < Operation::pointwise  ? Kind::batch_norm
         : operation < Operation::sequence   ? Kind::pointwise
                                             : Kind::sequence;
}

inline int64_t input_size(const Shape& s) { return s.N * s.C * s.H * s.W; }
inline int64_t weight_size(const Shape& s) { return s.out_channels() * s.taps(); }
inline int64_t output_size(const Shape& s) { return s.N * s.out_channels() * s.OH * s.OW; }
inline int64_t dense_size(const Shape& s) { return s.N * s.M * s.OH * s.OW; }
inline int64_t states_size(const Shape& s) { return s.N * s.C * s.pad_left; }
// More rows than images, and for neighbouring shapes other lengths: all that a cache may have, from none at all.
inline int64_t cache_rows(const Shape& s) { return s.N + 2; }
inline int64_t cache_length(const Shape& s) { return s.pad_left + (s.C + s.W) % 5; }
inline int64_t cache_size(const Shape& s) { return cache_rows(s) * s.C * cache_length(s); }

inline int64_t size(Answer answer, const Shape& s) {
  switch (answer) {
    case Answer::output:
    case Answer::output_with_bias: return output_size(s);
    case Answer::grad_input: return input_size(s);
    case Answer::grad_weight: return weight_size(s);
    case Answer::grad_bias: return s.out_channels();
    case Answer::dense:
    case Answer::dense_with_bias:
    case Answer::dense_with_residual:
    case Answer::dense_with_both: return dense_size(s);
    case Answer::layer_norm:
    case Answer::channel_scale: return input_size(s);
    case Answer::channel_sum: return s.N * s.C;
    case Answer::batch_norm_output:
    case Answer::batch_norm_eval_output:
    case Answer::batch_norm_grad_input:
    case Answer::batch_norm_eval_grad_input: return input_size(s);
    case Answer::batch_norm_mean:
    case Answer::batch_norm_variance:
    case Answer::batch_norm_grad_weight:
    case Answer::batch_norm_grad_bias: return s.C;
    case Answer::pointwise_output:
    case Answer::pointwise_output_with_bias: return dense_size(s);
    case Answer::pointwise_grad_input: return input_size(s);
    case Answer::pointwise_grad_weight: return weight_size(s);
    case Answer::sequence_output:
    case Answer::sequence_grad_input:
    case Answer::sequence_step_output: return input_size(s);
    case Answer::sequence_grad_weight: return weight_size(s);
    case Answer::sequence_grad_bias: return s.C;
    case Answer::sequence_grad_states: return states_size(s);
    case Answer::sequence_step_cache: return cache_size(s);
  }
  return 0;
}

// What an operation is given beside what it always reads.
struct Given {
  bool bias, residual;  // forward and dense read a bias, grad_weight and backward write its gradient; BatchNorm's has
                        // a weight beside it
  // Of sequences: what struct Sequence calls so.
  bool wide_weight = false, wide_bias = false, states = false, grad_states = false, reach = false;
  bool rows = false, begins = false;  // of sequence_step
};

// The dtype of numbers that a kernel of `dtype` keeps in the accumulator's type, and of its others.
inline DType stored_as(bool in_accumulator, DType dtype) {
  return in_accumulator && dtype != DType::f64 ? DType::f32 : dtype;
}

// What one of the buffers that an operation writes is called in Buffers, and what it holds.
struct Output {
  const char* name;
  Answer answer;
  bool in_accumulator = false;
};
std::vector<Output> outputs(Operation operation, Given given);

// An operand that an operation reads, by its name in Buffers.
struct Input {
  const char* name;
  std::vector<double> Operands::* values;
  bool in_accumulator = false, packed = false, is_integer = false;
  bool is_dense = false;  // has M channels, where others of its name have C*M
};
std::vector<Input> inputs(Operation operation, Given given);

// An operand's numbers as they lie in memory in a kernel's layout and dtype; filters and biases of depthwise operations
// lie the same way in both.
std::vector<double> in_layout(const Operands& operands, const Input& input, Layout layout, DType dtype, const Shape& s);
// Results as NCHW numbers.
std::vector<double> from_layout(const std::vector<double>& stored, Answer answer, Layout layout, const Shape& s);

}  // namespace dwconv::test
