// The operators on the tensors of a Device: check, turn tensors into pointers and a Shape, run. Included by the one
// source of each device that registers them.
//
// Nothing here computes, and nothing below here knows a tensor. The operators are also called directly, by exported and
// compiled graphs, so every check that memory safety needs is made here, whatever Python checked before. Derivatives,
// fake tensors and vmap are registered from Python (torch_dwconv/operators/fake.py, vmap.py).
//
// A Device has
//   kPlace                                        where its tensors are, in words that follow "must be"
//   owns(tensor)                                  whether one is there
//   run(operation, layout, like, shape, buffers)  picks a kernel and runs it; buffers are dense, on the device of `like`
//   runs_backward(layout, like, shape)            whether run takes Operation::backward as well
#pragma once
#include <tuple>

#include <torch/csrc/stable/library.h>

#include "geometry.h"
#include "tensors.h"

namespace dwconv {
namespace {

constexpr int64_t kLastActivation = int64_t(Activation::gelu_tanh);

template <class Device>
void run(Operation operation, Layout layout, const Tensor& like, const Shape& asked, const Buffers& buffers) {
  const Shape shape = without_empty_rows(asked);
  if (results(operation, shape) > 0) Device::run(operation, layout, like, shape, buffers);
}

template <class Device>
Tensor forward(const Out& out, const Tensor& input, const Tensor& weight, std::optional<Tensor> bias, int64_t out_h,
               int64_t out_w, int64_t stride_h, int64_t stride_w, int64_t pad_top, int64_t pad_left, int64_t dilation_h,
               int64_t dilation_w, bool channels_last, int64_t activation) {
  check_operand<Device>(input, "input", input, 4);
  check_operand<Device>(weight, "weight", input, 4);
  STD_TORCH_CHECK(activation >= 0 && activation <= kLastActivation, "torch_dwconv: activation must be 0 (none) to ",
                  kLastActivation, ", got ", activation);
  const int64_t C = input.size(1), M = multiplier(weight.size(0), C);
  const Shape shape = {input.size(0),  C,       M,       input.size(2), input.size(3), weight.size(2),
                       weight.size(3), out_h,   out_w,   stride_h,      stride_w,      dilation_h,
                       dilation_w,     pad_top, pad_left};
  check_geometry(shape);
  check_size(weight, "weight", weight_sizes(shape));
  if (bias) {
    check_operand<Device>(*bias, "bias", input, 1);
    STD_TORCH_CHECK(bias->size(0) == shape.out_channels(), "torch_dwconv: bias must have one value for each of the ",
                    shape.out_channels(), " output channels, got ", bias->size(0));
  }
  const Layout layout = layout_of(channels_last);
  const Tensor x = dense(input, layout), w = dense(weight, Layout::nchw);
  Tensor b;
  if (bias) b = bias->stride(0) == 1 || bias->size(0) <= 1 ? *bias : torch::stable::clone(*bias);
  Tensor output = result_tensor<Device>(out, input, output_sizes(shape), layout, {&x, &w, bias ? &b : &x});
  Buffers buffers;
  buffers.input = x.const_data_ptr();
  buffers.weight = w.const_data_ptr();
  buffers.bias = bias ? b.const_data_ptr() : nullptr;
  buffers.activation = Activation(activation);
  buffers.result = output.mutable_data_ptr();
  run<Device>(Operation::forward, layout, input, shape, buffers);
  return output;
}

// Of a gradient of this output, which has been checked, by an input of these sizes; the rest is checked here.
template <class Device>
Shape shape_of_gradient(const Tensor& grad_output, const Tensor& weight, int64_t images, int64_t in_channels,
                        int64_t in_h, int64_t in_w, int64_t stride_h, int64_t stride_w, int64_t pad_top,
                        int64_t pad_left, int64_t dilation_h, int64_t dilation_w) {
  check_operand<Device>(weight, "weight", grad_output, 4);
  STD_TORCH_CHECK(in_channels >= 0, "torch_dwconv: in_channels must not be negative, got ", in_channels);
  const int64_t M = multiplier(weight.size(0), in_channels);
  const Shape shape = {images,
                       in_channels,
                       M,
                       in_h,
                       in_w,
                       weight.size(2),
                       weight.size(3),
                       grad_output.size(2),
                       grad_output.size(3),
                       stride_h,
                       stride_w,
                       dilation_h,
                       dilation_w,
                       pad_top,
                       pad_left};
  check_geometry(shape);
  check_size(weight, "weight", weight_sizes(shape));
  check_size(grad_output, "grad_output", output_sizes(shape));
  return shape;
}

template <class Device>
Tensor grad_input(const Out& out, const Tensor& grad_output, const Tensor& weight, int64_t in_channels, int64_t in_h,
                  int64_t in_w, int64_t stride_h, int64_t stride_w, int64_t pad_top, int64_t pad_left,
                  int64_t dilation_h, int64_t dilation_w, bool channels_last) {
  check_operand<Device>(grad_output, "grad_output", grad_output, 4);
  const Shape shape = shape_of_gradient<Device>(grad_output, weight, grad_output.size(0), in_channels, in_h, in_w,
                                                stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w);
  const Layout layout = layout_of(channels_last);
  const Tensor g = dense(grad_output, layout), w = dense(weight, Layout::nchw);
  Tensor result = result_tensor<Device>(out, grad_output, input_sizes(shape), layout, {&g, &w});
  Buffers buffers;
  buffers.grad_output = g.const_data_ptr();
  buffers.weight = w.const_data_ptr();
  buffers.result = result.mutable_data_ptr();
  run<Device>(Operation::grad_input, layout, grad_output, shape, buffers);
  return result;
}

template <class Device>
std::tuple<Tensor, Tensor> grad_weight(const Out& out, const Out& bias_out, const Tensor& input,
                                       const Tensor& grad_output, int64_t kernel_h, int64_t kernel_w, int64_t stride_h,
                                       int64_t stride_w, int64_t pad_top, int64_t pad_left, int64_t dilation_h,
                                       int64_t dilation_w, bool with_bias, bool channels_last) {
  check_operand<Device>(input, "input", input, 4);
  check_operand<Device>(grad_output, "grad_output", input, 4);
  const int64_t C = input.size(1), M = multiplier(grad_output.size(1), C);
  const Shape shape = {
      input.size(0),       C,        M,        input.size(2), input.size(3), kernel_h, kernel_w, grad_output.size(2),
      grad_output.size(3), stride_h, stride_w, dilation_h,    dilation_w,    pad_top,  pad_left};
  check_geometry(shape);
  check_size(grad_output, "grad_output", output_sizes(shape));
  const Layout layout = layout_of(input);
  const Tensor x = dense(input, layout), g = dense(grad_output, layout);
  // One channel a filter: both memory formats lay the same elements out in the same order.
  Tensor result = result_tensor<Device>(out, input, weight_sizes(shape), layout_of(channels_last), {&x, &g});
  Tensor grad_bias = result_vector<Device>(bias_out, input, with_bias ? shape.out_channels() : 0, {&x, &g, &result});
  Buffers buffers;
  buffers.input = x.const_data_ptr();
  buffers.grad_output = g.const_data_ptr();
  buffers.result = result.mutable_data_ptr();
  buffers.grad_bias = with_bias ? grad_bias.mutable_data_ptr() : nullptr;
  run<Device>(Operation::grad_weight, layout, input, shape, buffers);
  return {result, grad_bias};
}

// What grad_input and grad_weight return: computed in one pass where the device has a kernel for it, else one after the
// other. For eager code on plain tensors; without a derivative, as the out overloads.
template <class Device>
std::tuple<Tensor, Tensor, Tensor> backward(const Tensor& grad_output, const Tensor& input, const Tensor& weight,
                                            int64_t stride_h, int64_t stride_w, int64_t pad_top, int64_t pad_left,
                                            int64_t dilation_h, int64_t dilation_w, bool with_bias, bool channels_last,
                                            bool weight_channels_last) {
  check_operand<Device>(grad_output, "grad_output", grad_output, 4);
  check_operand<Device>(input, "input", grad_output, 4);
  const int64_t C = input.size(1);
  const Shape shape = shape_of_gradient<Device>(grad_output, weight, input.size(0), C, input.size(2), input.size(3),
                                                stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w);
  const Layout layout = layout_of(channels_last);
  if (layout_of(input) != layout || !Device::runs_backward(layout, input, without_empty_rows(shape))) {
    Tensor input_gradient = grad_input<Device>(std::nullopt, grad_output, weight, C, shape.H, shape.W, stride_h,
                                               stride_w, pad_top, pad_left, dilation_h, dilation_w, channels_last);
    auto [weight_gradient, bias_gradient] =
        grad_weight<Device>(std::nullopt, std::nullopt, input, grad_output, shape.KH, shape.KW, stride_h, stride_w,
                            pad_top, pad_left, dilation_h, dilation_w, with_bias, weight_channels_last);
    return {input_gradient, weight_gradient, bias_gradient};
  }
  const Tensor x = dense(input, layout), g = dense(grad_output, layout), w = dense(weight, Layout::nchw);
  Tensor input_gradient = empty_like_dtype(input, input_sizes(shape), layout);
  Tensor weight_gradient = empty_like_dtype(input, weight_sizes(shape), layout_of(weight_channels_last));
  Tensor bias_gradient = empty_vector(input, with_bias ? shape.out_channels() : 0);
  Buffers buffers;
  buffers.input = x.const_data_ptr();
  buffers.weight = w.const_data_ptr();
  buffers.grad_output = g.const_data_ptr();
  buffers.result = input_gradient.mutable_data_ptr();
  buffers.grad_weight = weight_gradient.mutable_data_ptr();
  buffers.grad_bias = with_bias ? bias_gradient.mutable_data_ptr() : nullptr;
  run<Device>(Operation::backward, layout, input, shape, buffers);
  return {input_gradient, weight_gradient, bias_gradient};
}

// The two overloads of an operator, by its arguments: one allocates the result, one writes to the last argument.
template <auto op>
struct Overloads;

template <typename... Arguments, Tensor (*op)(const Out&, Arguments...)>
struct Overloads<op> {
  static Tensor fresh(Arguments... arguments) { return op(std::nullopt, arguments...); }
  static Tensor out(Arguments... arguments, Tensor out) { return op(out, arguments...); }
};

template <typename... Arguments, std::tuple<Tensor, Tensor> (*op)(const Out&, const Out&, Arguments...)>
struct Overloads<op> {
  using Results = std::tuple<Tensor, Tensor>;
  static Results fresh(Arguments... arguments) { return op(std::nullopt, std::nullopt, arguments...); }
  static Results out(Arguments... arguments, Tensor out, Tensor bias_out) { return op(out, bias_out, arguments...); }
};

// Makes them the kernels of a dispatch key.
template <class Device>
void implement(torch::stable::detail::StableLibrary& m) {
  m.impl("forward", TORCH_BOX((&Overloads<forward<Device>>::fresh)));
  m.impl("forward.out", TORCH_BOX((&Overloads<forward<Device>>::out)));
  m.impl("grad_input", TORCH_BOX((&Overloads<grad_input<Device>>::fresh)));
  m.impl("grad_input.out", TORCH_BOX((&Overloads<grad_input<Device>>::out)));
  m.impl("grad_weight", TORCH_BOX((&Overloads<grad_weight<Device>>::fresh)));
  m.impl("grad_weight.out", TORCH_BOX((&Overloads<grad_weight<Device>>::out)));
  m.impl("backward", TORCH_BOX((&backward<Device>)));
}

}  // namespace
}  // namespace dwconv
