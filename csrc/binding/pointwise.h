// The operators of the pointwise convolution in training: checks that memory safety needs, then the kernels.
//
// channels_last is the memory format in which operands of four dimensions are read and results written;
// weight_channels_last that of the weight's gradient, which lies in memory the same way in both.
#pragma once
#include "geometry.h"
#include "tensors.h"

namespace dwconv {
namespace {

Shape pointwise_shape(int64_t images, int64_t channels, int64_t outputs, int64_t height, int64_t width) {
  const Shape shape = {images, channels, outputs, height, width, 1, 1, height, width, 1, 1, 1, 1, 0, 0};
  check_geometry(shape);
  return shape;
}

template <class Device>
void check_pointwise(const Tensor& tensor, const char* name, const Tensor& first) {
  check_operand<Device>(tensor, name, first, 4);
  STD_TORCH_CHECK(dtype_of(tensor) == DType::f32, "torch_dwconv: ", name, " of pointwise must be float32");
}

// The result, which is on the operands' device.
template <class Device>
Tensor run_pointwise(Operation operation, Layout layout, const Shape& shape, Buffers& buffers, Tensor result) {
  buffers.result = result.mutable_data_ptr();
  if (result.numel() > 0) Device::run(operation, layout, result, shape, buffers);
  return result;
}

template <class Device>
Tensor pointwise(Tensor input, Tensor weight, std::optional<Tensor> bias, bool channels_last) {
  check_pointwise<Device>(input, "input", input);
  check_pointwise<Device>(weight, "weight", input);
  const auto [images, channels, height, width] = sizes_of(input);
  const int64_t outputs = weight.size(0);
  check_size(weight, "weight", {outputs, channels, 1, 1});
  const Shape shape = pointwise_shape(images, channels, outputs, height, width);
  Tensor b;
  if (bias) {
    check_operand<Device>(*bias, "bias", input, 1);
    STD_TORCH_CHECK(bias->size(0) == outputs, "torch_dwconv: bias must have one value for each of the ", outputs,
                    " output channels, got ", bias->size(0));
    b = bias->stride(0) == 1 || bias->size(0) <= 1 ? *bias : torch::stable::clone(*bias);
  }
  const Layout layout = layout_of(channels_last);
  const Tensor x = dense(input, layout), w = dense(weight, Layout::nchw);
  Buffers buffers;
  buffers.input = x.const_data_ptr();
  buffers.weight = w.const_data_ptr();
  buffers.bias = bias ? b.const_data_ptr() : nullptr;
  return run_pointwise<Device>(Operation::pointwise, layout, shape, buffers,
                               empty_like_dtype(input, {images, outputs, height, width}, layout));
}

template <class Device>
Tensor pointwise_grad_input(Tensor grad_output, Tensor weight, bool channels_last) {
  check_pointwise<Device>(grad_output, "grad_output", grad_output);
  check_pointwise<Device>(weight, "weight", grad_output);
  const auto [images, outputs, height, width] = sizes_of(grad_output);
  const int64_t channels = weight.size(1);
  check_size(weight, "weight", {outputs, channels, 1, 1});
  const Shape shape = pointwise_shape(images, channels, outputs, height, width);
  const Layout layout = layout_of(channels_last);
  const Tensor g = dense(grad_output, layout), w = dense(weight, Layout::nchw);
  Buffers buffers;
  buffers.grad_output = g.const_data_ptr();
  buffers.weight = w.const_data_ptr();
  return run_pointwise<Device>(Operation::pointwise_grad_input, layout, shape, buffers,
                               empty_like_dtype(grad_output, {images, channels, height, width}, layout));
}

template <class Device>
Tensor pointwise_grad_weight(Tensor input, Tensor grad_output, bool channels_last, bool weight_channels_last) {
  check_pointwise<Device>(input, "input", input);
  check_pointwise<Device>(grad_output, "grad_output", input);
  const auto [images, channels, height, width] = sizes_of(input);
  const int64_t outputs = grad_output.size(1);
  check_size(grad_output, "grad_output", {images, outputs, height, width});
  const Shape shape = pointwise_shape(images, channels, outputs, height, width);
  const Layout layout = layout_of(channels_last);
  const Tensor x = dense(input, layout), g = dense(grad_output, layout);
  Buffers buffers;
  buffers.input = x.const_data_ptr();
  buffers.grad_output = g.const_data_ptr();
  return run_pointwise<Device>(Operation::pointwise_grad_weight, layout, shape, buffers,
                               empty_like_dtype(input, {outputs, channels, 1, 1}, layout_of(weight_channels_last)));
}

}  // namespace
}  // namespace dwconv
