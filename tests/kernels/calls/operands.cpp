#include "operands.h"

namespace dwconv::test {
namespace {

// Sizes of images of N by channels planes; without planes there is nothing to reorder.
struct Images {
  int64_t channels, pixels;
};

Images images(Answer answer, const Shape& s) {
  switch (answer) {
    case Answer::output:
    case Answer::output_with_bias: return {s.out_channels(), s.OH * s.OW};
    case Answer::grad_input:
    case Answer::layer_norm:
    case Answer::channel_scale:
    case Answer::batch_norm_output:
    case Answer::batch_norm_eval_output:
    case Answer::batch_norm_grad_input:
    case Answer::batch_norm_eval_grad_input:
    case Answer::pointwise_grad_input:
    case Answer::sequence_output:
    case Answer::sequence_grad_input:
    case Answer::sequence_step_output: return {s.C, s.H * s.W};
    case Answer::sequence_grad_states: return {s.C, s.pad_left};
    case Answer::dense:
    case Answer::dense_with_bias:
    case Answer::dense_with_residual:
    case Answer::dense_with_both:
    case Answer::pointwise_output:
    case Answer::pointwise_output_with_bias: return {s.M, s.OH * s.OW};
    default: return {0, 0};
  }
}

// Calls each(place in NCHW, place in NHWC) for every number.
template <class Each>
void for_each_place(const Images& all, const Shape& s, Each each) {
  size_t from = 0;
  for (int64_t n = 0; n < s.N; ++n) {
    for (int64_t c = 0; c < all.channels; ++c) {
      for (int64_t pixel = 0; pixel < all.pixels; ++pixel) {
        each(from++, size_t((n * all.pixels + pixel) * all.channels + c));
      }
    }
  }
}

// The weight of dense in panels of 16 output channels, as csrc/kernel.h says. A bf16 panel has two taps side by side:
// of C = 3 and one output channel, 3x1 taps w0 w1 w2 of a row become  w0 w1 (15 pairs of zeros)  w2 0 (15 pairs of zeros).
std::vector<double> in_panels(const std::vector<double>& weight, DType dtype, const Shape& s) {
  const int64_t taps_at_once = dtype == DType::bf16 ? 2 : 1;
  const bool whole_rows = s.dilation_w == 1 || s.KW == 1;
  const int64_t length = whole_rows ? s.KW * s.C : s.C;  // of a segment, in taps
  const int64_t segments = whole_rows ? s.KH : s.KH * s.KW;
  const int64_t steps = (length + taps_at_once - 1) / taps_at_once;
  const int64_t panel_size = segments * steps * taps_at_once * 16;
  std::vector<double> packed(size_t((s.M + 15) / 16 * panel_size));
  for (int64_t o = 0; o < s.M; ++o) {
    for (int64_t segment = 0; segment < segments; ++segment) {
      for (int64_t i = 0; i < length; ++i) {
        const int64_t tap = segment * length + i, c = tap % s.C, kw = tap / s.C % s.KW, kh = tap / s.C / s.KW;
        const int64_t step = segment * steps + i / taps_at_once;
        const int64_t place = (step * 16 + o % 16) * taps_at_once + i % taps_at_once;
        packed[size_t(o / 16 * panel_size + place)] = weight[size_t(((o * s.C + c) * s.KH + kh) * s.KW + kw)];
      }
    }
  }
  return packed;
}

// The images that an operand consists of, by an answer that lies in memory the same way.
Answer shaped_as(const Input& input) {
  if (input.values == &Operands::input) return Answer::grad_input;
  if (input.values == &Operands::grad_output) return input.is_dense ? Answer::dense : Answer::output;
  if (input.values == &Operands::residual) return Answer::dense;
  if (input.values == &Operands::states) return Answer::sequence_grad_states;
  return Answer::grad_weight;
}

Answer dense_answer(Given given) {
  if (given.residual) return given.bias ? Answer::dense_with_both : Answer::dense_with_residual;
  return given.bias ? Answer::dense_with_bias : Answer::dense;
}

}  // namespace

const char* name(Kind kind) {
  constexpr const char* names[] = {"depthwise", "dense", "channelwise", "batch_norm", "pointwise", "sequence"};
  return names[int(kind)];
}

const char* name(Answer answer) {
  constexpr const char* names[] = {"output",
                                   "output_with_bias",
                                   "grad_input",
                                   "grad_weight",
                                   "grad_bias",
                                   "dense",
                                   "dense_with_bias",
                                   "dense_with_residual",
                                   "dense_with_both",
                                   "layer_norm",
                                   "channel_scale",
                                   "channel_sum",
                                   "batch_norm_output",
                                   "batch_norm_mean",
                                   "batch_norm_variance",
                                   "batch_norm_eval_output",
                                   "batch_norm_grad_input",
                                   "batch_norm_grad_weight",
                                   "batch_norm_grad_bias",
                                   "batch_norm_eval_grad_input",
                                   "pointwise_output",
                                   "pointwise_output_with_bias",
                                   "pointwise_grad_input",
                                   "pointwise_grad_weight",
                                   "sequence_output",
                                   "sequence_grad_input",
                                   "sequence_grad_weight",
                                   "sequence_grad_bias",
                                   "sequence_grad_states",
                                   "sequence_step_output",
                                   "sequence_step_cache"};
  static_assert(sizeof names / sizeof names[0] == kAnswers);
  return names[int(answer)];
}

std::vector<Output> outputs(Operation operation, Given given) {
  std::vector<Output> all;
  switch (operation) {
    case Operation::forward: return {{"result", given.bias ? Answer::output_with_bias : Answer::output}};
    case Operation::grad_input: return {{"result", Answer::grad_input}};
    case Operation::grad_weight: all = {{"result", Answer::grad_weight}}; break;
    case Operation::backward: all = {{"result", Answer::grad_input}, {"grad_weight", Answer::grad_weight}}; break;
    case Operation::dense: return {{"result", dense_answer(given)}};
    case Operation::layer_norm: return {{"result", Answer::layer_norm}};
    case Operation::channel_scale: return {{"result", Answer::channel_scale}};
    case Operation::channel_sum: return {{"result", Answer::channel_sum, true}};
    case Operation::batch_norm:
      return {{"result", Answer::batch_norm_output},
              {"mean", Answer::batch_norm_mean, true},
              {"variance", Answer::batch_norm_variance, true}};
    case Operation::batch_norm_eval: return {{"result", Answer::batch_norm_eval_output}};
    case Operation::batch_norm_backward:
    case Operation::batch_norm_eval_backward: {
      const bool of_batch = operation == Operation::batch_norm_backward;
      all = {{"result", of_batch ? Answer::batch_norm_grad_input : Answer::batch_norm_eval_grad_input}};
      if (!given.bias) return all;
      all.push_back({"grad_weight", Answer::batch_norm_grad_weight, true});
      all.push_back({"grad_bias", Answer::batch_norm_grad_bias, true});
      return all;
    }
    case Operation::pointwise:
      return {{"result", given.bias ? Answer::pointwise_output_with_bias : Answer::pointwise_output}};
    case Operation::pointwise_grad_input: return {{"result", Answer::pointwise_grad_input}};
    case Operation::pointwise_grad_weight: return {{"result", Answer::pointwise_grad_weight}};
    case Operation::sequence: return {{"result", Answer::sequence_output}};
    case Operation::sequence_backward:
      all = {{"result", Answer::sequence_grad_input}, {"grad_weight", Answer::sequence_grad_weight, given.wide_weight}};
      if (given.bias) all.push_back({"grad_bias", Answer::sequence_grad_bias, given.wide_bias});
      if (given.grad_states) all.push_back({"grad_states", Answer::sequence_grad_states});
      return all;
    case Operation::sequence_step:
      return {{"result", Answer::sequence_step_output}, {"cache", Answer::sequence_step_cache}};
  }
  if (given.bias) all.push_back({"grad_bias", Answer::grad_bias});
  return all;
}

std::vector<Input> inputs(Operation operation, Given given) {
  const Input input = {"input", &Operands::input}, weight = {"weight", &Operands::weight};
  const Input grad_output = {"grad_output", &Operands::grad_output};
  const Input grad_dense = {"grad_output", &Operands::grad_output, false, false, false, true};
  std::vector<Input> all;
  switch (operation) {
    case Operation::forward:
    case Operation::pointwise:
      all = {input, weight};
      if (given.bias) all.push_back({"bias", &Operands::bias});
      break;
    case Operation::grad_input: return {weight, grad_output};
    case Operation::grad_weight: return {input, grad_output};
    case Operation::backward: return {input, weight, grad_output};
    case Operation::pointwise_grad_input: return {weight, grad_dense};
    case Operation::pointwise_grad_weight: return {input, grad_dense};
    case Operation::dense:
      all = {input, {"weight", &Operands::weight, false, true}};
      if (given.bias) all.push_back({"bias", &Operands::bias, true});
      if (given.residual) all.push_back({"residual", &Operands::residual});
      break;
    case Operation::layer_norm:
    case Operation::channel_sum: return {input};
    case Operation::channel_scale: return {input, {"scale", &Operands::scale, true}};
    case Operation::batch_norm:
    case Operation::batch_norm_eval:
    case Operation::batch_norm_backward:
    case Operation::batch_norm_eval_backward:
      all = {input};
      if (given.bias) {
        all.push_back({"weight", &Operands::weight, true}), all.push_back({"bias", &Operands::bias, true});
      }
      if (operation == Operation::batch_norm) return all;
      all.push_back({"mean", &Operands::mean, true}), all.push_back({"variance", &Operands::variance, true});
      if (operation != Operation::batch_norm_eval) all.push_back(grad_output);
      return all;
    case Operation::sequence:
    case Operation::sequence_backward:
    case Operation::sequence_step:
      all = {input, {"weight", &Operands::weight, given.wide_weight}};
      if (given.bias) all.push_back({"bias", &Operands::bias, given.wide_bias});
      if (operation == Operation::sequence_backward) all.push_back(grad_output);
      if (given.states) all.push_back({"states", &Operands::states});
      if (given.reach) all.push_back({"reach", &Operands::reach, false, false, true});
      if (given.rows) all.push_back({"rows", &Operands::rows, false, false, true});
      if (given.begins) all.push_back({"begins", &Operands::begins, false, false, true});
  }
  return all;
}

std::vector<double> in_layout(const Operands& operands, const Input& input, Layout layout, DType dtype,
                              const Shape& s) {
  const std::vector<double>& values = operands.*input.values;
  if (input.packed) return in_panels(values, dtype, s);
  const Images all = images(shaped_as(input), s);
  if (layout == Layout::nchw || all.pixels == 0) return values;
  std::vector<double> stored(values.size());
  for_each_place(all, s, [&](size_t nchw, size_t nhwc) { stored[nhwc] = values[nchw]; });
  return stored;
}

std::vector<double> from_layout(const std::vector<double>& stored, Answer answer, Layout layout, const Shape& s) {
  const Images all = images(answer, s);
  if (layout == Layout::nchw || all.pixels == 0) return stored;
  std::vector<double> values(stored.size());
  for_each_place(all, s, [&](size_t nchw, size_t nhwc) { values[nchw] = stored[nhwc]; });
  return values;
}

}  // namespace dwconv::test
