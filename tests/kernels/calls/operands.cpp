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
    case Answer::grad_input: return {s.C, s.H * s.W};
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

}  // namespace

std::vector<Output> outputs(Operation operation, bool with_bias) {
  std::vector<Output> all;
  switch (operation) {
    case Operation::forward: return {{"result", with_bias ? Answer::output_with_bias : Answer::output}};
    case Operation::grad_input: return {{"result", Answer::grad_input}};
    case Operation::grad_weight: all = {{"result", Answer::grad_weight}}; break;
    case Operation::backward: all = {{"result", Answer::grad_input}, {"grad_weight", Answer::grad_weight}}; break;
  }
  if (with_bias) all.push_back({"grad_bias", Answer::grad_bias});
  return all;
}

std::vector<Input> inputs(Operation operation, bool with_bias) {
  std::vector<Input> all;
  if (operation != Operation::grad_input) all.push_back({"input", &Operands::input});
  if (operation != Operation::grad_weight) all.push_back({"weight", &Operands::weight});
  if (operation == Operation::forward && with_bias) all.push_back({"bias", &Operands::bias});
  if (operation != Operation::forward) all.push_back({"grad_output", &Operands::grad_output});
  return all;
}

std::vector<double> in_layout(const std::vector<double>& values, Answer answer, Layout layout, const Shape& s) {
  const Images all = images(answer, s);
  if (layout == Layout::nchw || all.pixels == 0) return values;
  std::vector<double> stored(values.size());
  for_each_place(all, s, [&](size_t nchw, size_t nhwc) { stored[nhwc] = values[nchw]; });
  return stored;
}

std::vector<double> in_layout(const std::vector<double>& values, const Input& input, Layout layout, const Shape& s) {
  if (input.values == &Operands::input) return in_layout(values, Answer::grad_input, layout, s);
  if (input.values == &Operands::grad_output) return in_layout(values, Answer::output, layout, s);
  return values;
}

std::vector<double> from_layout(const std::vector<double>& stored, Answer answer, Layout layout, const Shape& s) {
  const Images all = images(answer, s);
  if (layout == Layout::nchw || all.pixels == 0) return stored;
  std::vector<double> values(stored.size());
  for_each_place(all, s, [&](size_t nchw, size_t nhwc) { values[nchw] = stored[nhwc]; });
  return values;
}

}  // namespace dwconv::test
