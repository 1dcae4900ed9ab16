// The operators of BatchNorm with its activation: checks that memory safety needs, then the kernels.
//
// Parameters, mean and variance are (C,), contiguous and float32, or float64 where the input is. channels_last is the
// memory format of what has the input's size.
#pragma once
#include <tuple>

#include "geometry.h"
#include "tensors.h"

namespace dwconv {
namespace {

// A tensor of one number for each channel, in the accumulator's type.
template <class Device>
void check_of_channels(const Tensor& tensor, const char* name, const Tensor& input) {
  const ScalarType wanted = dtype_of(input) == DType::f64 ? ScalarType::Double : ScalarType::Float;
  STD_TORCH_CHECK(Device::owns(tensor) && tensor.get_device() == input.get_device(), "torch_dwconv: ", name,
                  " must be ", Device::kPlace);
  STD_TORCH_CHECK(
      tensor.dim() == 1 && tensor.size(0) == input.size(1) && tensor.scalar_type() == wanted && tensor.is_contiguous(),
      "torch_dwconv: ", name, " must be (", input.size(1), ",), contiguous, and float32 or as float64 as ",
      "the input");
}

Tensor empty_of_channels(const Tensor& input, int64_t size) {
  const bool wide = dtype_of(input) == DType::f64;
  const int64_t stride = 1;
  return allocate(input, &size, &stride, 1, wide ? aoti_torch_dtype_float64() : aoti_torch_dtype_float32());
}

// What both directions are given, checked.
template <class Device>
Buffers batch_norm_buffers(const Tensor& input, const std::optional<Tensor>& weight, const std::optional<Tensor>& bias,
                           double epsilon, int64_t activation) {
  check_operand<Device>(input, "input", input, 4);
  STD_TORCH_CHECK(activation >= 0 && activation <= int64_t(Activation::gelu_tanh),
                  "torch_dwconv: activation must be 0 (none) to ", int64_t(Activation::gelu_tanh), ", got ",
                  activation);
  Buffers buffers;
  if (weight) check_of_channels<Device>(*weight, "weight", input), buffers.weight = weight->const_data_ptr();
  if (bias) check_of_channels<Device>(*bias, "bias", input), buffers.bias = bias->const_data_ptr();
  buffers.epsilon = epsilon;
  buffers.activation = Activation(activation);
  return buffers;
}

template <class Device>
void run_batch_norm(Operation operation, Layout layout, const Tensor& input, const Buffers& buffers) {
  const auto [images, channels, height, width] = sizes_of(input);
  const Shape shape = {images, channels, 1, height, width, 1, 1, height, width, 1, 1, 1, 1, 0, 0};
  check_geometry(shape);
  Device::run(operation, layout, input, shape, buffers);
}

template <class Device>
std::tuple<Tensor, Tensor, Tensor> batch_norm(Tensor input, std::optional<Tensor> weight, std::optional<Tensor> bias,
                                              double epsilon, int64_t activation, bool channels_last) {
  Buffers buffers = batch_norm_buffers<Device>(input, weight, bias, epsilon, activation);
  STD_TORCH_CHECK(input.numel() > 0, "torch_dwconv: nothing has a mean where input has no elements");
  const Layout layout = layout_of(channels_last);
  const Tensor x = dense(input, layout);
  Tensor output = empty_like_dtype(input, sizes_of(input), layout);
  Tensor mean = empty_of_channels(input, input.size(1)), variance = empty_of_channels(input, input.size(1));
  buffers.input = x.const_data_ptr();
  buffers.result = output.mutable_data_ptr();
  buffers.mean = mean.mutable_data_ptr(), buffers.variance = variance.mutable_data_ptr();
  run_batch_norm<Device>(Operation::batch_norm, layout, input, buffers);
  return {output, mean, variance};
}

template <class Device>
Tensor batch_norm_eval(Tensor input, std::optional<Tensor> weight, std::optional<Tensor> bias, Tensor mean,
                       Tensor variance, double epsilon, int64_t activation, bool channels_last) {
  Buffers buffers = batch_norm_buffers<Device>(input, weight, bias, epsilon, activation);
  check_of_channels<Device>(mean, "mean", input), check_of_channels<Device>(variance, "variance", input);
  const Layout layout = layout_of(channels_last);
  const Tensor x = dense(input, layout);
  Tensor output = empty_like_dtype(input, sizes_of(input), layout);
  buffers.input = x.const_data_ptr();
  buffers.result = output.mutable_data_ptr();
  buffers.mean = const_cast<void*>(mean.const_data_ptr());
  buffers.variance = const_cast<void*>(variance.const_data_ptr());
  if (input.numel() > 0) run_batch_norm<Device>(Operation::batch_norm_eval, layout, input, buffers);
  return output;
}

// The gradients of input, weight and bias; empty vectors for those that are not wanted.
template <class Device>
std::tuple<Tensor, Tensor, Tensor> batch_norm_backward(Tensor grad_output, Tensor input, std::optional<Tensor> weight,
                                                       std::optional<Tensor> bias, Tensor mean, Tensor variance,
                                                       double epsilon, int64_t activation, bool of_batch,
                                                       bool wants_input, bool wants_parameters, bool channels_last) {
  Buffers buffers = batch_norm_buffers<Device>(input, weight, bias, epsilon, activation);
  check_operand<Device>(grad_output, "grad_output", input, 4);
  check_size(grad_output, "grad_output", sizes_of(input));
  check_of_channels<Device>(mean, "mean", input), check_of_channels<Device>(variance, "variance", input);
  STD_TORCH_CHECK(input.numel() > 0, "torch_dwconv: nothing has a gradient where input has no elements");
  const Layout layout = layout_of(channels_last);
  const Tensor x = dense(input, layout), g = dense(grad_output, layout);
  Tensor grad_input = wants_input ? empty_like_dtype(input, sizes_of(input), layout) : empty_vector(input, 0);
  const int64_t channels = wants_parameters ? input.size(1) : 0;
  Tensor grad_weight = empty_of_channels(input, channels), grad_bias = empty_of_channels(input, channels);
  buffers.input = x.const_data_ptr();
  buffers.grad_output = g.const_data_ptr();
  buffers.mean = const_cast<void*>(mean.const_data_ptr());
  buffers.variance = const_cast<void*>(variance.const_data_ptr());
  if (wants_input) buffers.result = grad_input.mutable_data_ptr();
  if (wants_parameters) {
    buffers.grad_weight = grad_weight.mutable_data_ptr(), buffers.grad_bias = grad_bias.mutable_data_ptr();
  }
  const auto operation = of_batch ? Operation::batch_norm_backward : Operation::batch_norm_eval_backward;
  run_batch_norm<Device>(operation, layout, input, buffers);
  return {grad_input, grad_weight, grad_bias};
}

}  // namespace
}  // namespace dwconv
