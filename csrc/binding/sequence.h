// The operators of sequences on CPU tensors: checks that memory safety needs, tensors into pointers, a Shape and a Sequence.
#pragma once
#include <optional>
#include <tuple>
#include <vector>

#include "geometry.h"
#include "tensors.h"

namespace dwconv {
namespace {

using Sizes3 = std::array<int64_t, 3>;

Sizes3 strides_of_rows(const Sizes3& z, Layout layout) {
  if (layout == Layout::nhwc) return {z[1] * z[2], 1, z[1]};
  return {z[1] * z[2], z[2], 1};
}

Tensor empty_rows(const Tensor& like, const Sizes3& sizes, Layout layout, int64_t dim = 3) {
  int32_t dtype = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(like.get(), &dtype));
  return allocate(like, sizes.data(), strides_of_rows(sizes, layout).data(), dim, dtype);
}

// Of two dimensions where there is one position.
Sizes3 sizes_of_rows(const Tensor& tensor) {
  const auto sizes = tensor.sizes();
  return {sizes[0], sizes[1], sizes.size() == 2 ? 1 : sizes[2]};
}

// The layout of the results, as torch_dwconv/operators/sequence says it of fake tensors too.
Layout layout_of_rows(const Tensor& x) { return x.stride(1) == 1 && x.stride(2) != 1 ? Layout::nhwc : Layout::nchw; }

// The tensor, or a dense copy if its rows are not dense.
Tensor with_dense_rows(const Tensor& tensor, Layout layout) {
  const int row = layout == Layout::nhwc ? 1 : 2;
  if (tensor.stride(row) == 1 || tensor.size(row) == 1 || tensor.numel() == 0) return tensor;
  Tensor copy = empty_rows(tensor, sizes_of_rows(tensor), layout);
  torch::stable::copy_(copy, tensor);
  return copy;
}
Sequence::Steps steps_of_rows(const Tensor& tensor, Layout layout) {
  return {tensor.stride(0), tensor.stride(layout == Layout::nhwc ? 2 : 1)};
}

// The states, (N, C, R), dense in the layout.
Tensor dense_states(const Tensor& states, Layout layout) {
  const Sizes3 sizes = sizes_of_rows(states), wanted = strides_of_rows(sizes, layout);
  bool same = true;
  for (int d = 0; d < 3; ++d) same = same && (sizes[d] == 1 || states.stride(d) == wanted[d]);
  if (same || states.numel() == 0) return states;
  Tensor copy = empty_rows(states, sizes, layout);
  torch::stable::copy_(copy, states);
  return copy;
}

void check_rows(const Tensor& tensor, const char* name, const Sizes3& wanted) {
  STD_TORCH_CHECK(sizes_of_rows(tensor) == wanted, "torch_dwconv: ", name, " must be (", wanted[0], ", ", wanted[1],
                  ", ", wanted[2], "), got (", tensor.size(0), ", ", tensor.size(1), ", ", tensor.size(2), ")");
}

// int32, as causal-conv1d has them.
template <class Device>
void check_integers(const Tensor& tensor, const char* name, const Tensor& first, std::initializer_list<int64_t> sizes) {
  STD_TORCH_CHECK(tensor.scalar_type() == ScalarType::Int, "torch_dwconv: ", name, " must be int32");
  STD_TORCH_CHECK(Device::owns(tensor) && tensor.get_device() == first.get_device(), "torch_dwconv: ", name,
                  " must be ", Device::kPlace);
  bool same = tensor.dim() == int64_t(sizes.size());
  int64_t d = 0;
  for (int64_t size : sizes) same = same && tensor.size(d++) == size;
  STD_TORCH_CHECK(same, "torch_dwconv: ", name, sizes.size() == 1 ? " must be (batch,)" : " must be (batch, seqlen)");
}

// Whether a parameter is in the accumulator's type; if it is in neither type, that is an error.
bool is_wide(const Tensor& parameter, const char* name, const Tensor& x) {
  const ScalarType type = parameter.scalar_type(), of_x = x.scalar_type();
  const bool narrow = of_x == ScalarType::BFloat16 || of_x == ScalarType::Half;
  STD_TORCH_CHECK(type == of_x || (narrow && type == ScalarType::Float), "torch_dwconv: ", name,
                  " must have the dtype of x or, where that has 16 bits, be float32");
  return type != of_x;
}

Tensor dense_parameter(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

// What all operators of sequences have: x, weight and bias, checked.
struct Parameters {
  Tensor weight;
  std::optional<Tensor> bias;
  Shape shape;

  template <class Device>
  static Parameters of(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, int64_t dilation,
                       int64_t activation, Sequence& sequence, Buffers& buffers, Device) {
    dtype_of(x);
    const auto [images, channels, positions] = sizes_of_rows(x);
    STD_TORCH_CHECK(weight.dim() == 2 && weight.size(0) == channels, "torch_dwconv: weight must be (", channels,
                    ", width), got ", weight.dim(), " dimensions, the first of size ",
                    weight.dim() > 0 ? weight.size(0) : 0);
    STD_TORCH_CHECK(Device::owns(weight) && weight.get_device() == x.get_device(), "torch_dwconv: weight must be ",
                    Device::kPlace);
    sequence.wide_weight = is_wide(weight, "weight", x);
    STD_TORCH_CHECK(activation == 0 || activation == int64_t(Activation::silu),
                    "torch_dwconv: activation must be 0 (none) or ", int64_t(Activation::silu), " (silu), got ",
                    activation);
    STD_TORCH_CHECK(weight.size(1) > 0, "torch_dwconv: the width of weight must be positive, got 0");
    const int64_t width = weight.size(1), reach = (width - 1) * dilation;
    const Shape shape = {images, channels, 1, 1, positions, 1, width, 1, positions, 1, 1, 1, dilation, 0, reach};
    STD_TORCH_CHECK(dilation > 0 && dilation <= (1 << 16), "torch_dwconv: dilation must be 1 to 65536, got ", dilation);
    check_geometry(shape);
    STD_TORCH_CHECK(width <= Sequence::kMostTaps && reach <= Sequence::kMostReach,
                    "torch_dwconv: there are kernels for ", Sequence::kMostTaps, " taps and for a reach of ",
                    Sequence::kMostReach, " positions, got ", width, " and ", reach);
    Parameters made = {dense_parameter(weight), std::nullopt, shape};
    if (bias) {
      STD_TORCH_CHECK(bias->dim() == 1 && bias->size(0) == channels, "torch_dwconv: bias must be (", channels,
                      ",), got ", bias->dim(), " dimensions, the first of size ", bias->dim() > 0 ? bias->size(0) : 0);
      STD_TORCH_CHECK(Device::owns(*bias) && bias->get_device() == x.get_device(), "torch_dwconv: bias must be ",
                      Device::kPlace);
      sequence.wide_bias = is_wide(*bias, "bias", x);
      made.bias = dense_parameter(*bias);
      buffers.bias = made.bias->const_data_ptr();
    }
    buffers.weight = made.weight.const_data_ptr();
    buffers.activation = Activation(activation);
    buffers.sequence = &sequence;
    return made;
  }
};

// How far each result may look back, out of the numbers of the sequences that share a row. A negative number is padding.
template <class Device>
std::optional<Tensor> reach_of(const std::optional<Tensor>& seq_idx, const Tensor& x, const Shape& shape) {
  if (!seq_idx) return std::nullopt;
  check_integers<Device>(*seq_idx, "seq_idx", x, {shape.N, shape.W});
  const int64_t most = shape.pad_left, size = shape.N * shape.W + 16, stride = 1;
  Tensor made = allocate(x, &size, &stride, 1, aoti_torch_dtype_int32());
  int32_t* reach = static_cast<int32_t*>(made.mutable_data_ptr());
  const int32_t* numbers = static_cast<const int32_t*>(seq_idx->const_data_ptr());
  for (int64_t n = 0; n < shape.N; ++n) {
    int32_t largest = -1, last = 0;
    int64_t begin = 0;
    for (int64_t l = 0; l < shape.W; ++l) {
      const int32_t number = numbers[n * seq_idx->stride(0) + l * seq_idx->stride(1)];
      STD_TORCH_CHECK(number < 0 || number >= largest, "torch_dwconv: seq_idx must not decrease along a row, got ",
                      number, " after ", largest);
      if (l == 0) {
        begin = -most;
      } else if (number != last) {
        begin = l;
      }
      last = number, largest = std::max(largest, number);
      *reach++ = number < 0 ? -1 : int32_t(std::min(most, l - begin));
    }
  }
  std::fill_n(reach, 16, 0);
  return made;
}

template <class Device>
Layout place(const Tensor& x, const std::optional<Tensor>& states, const Shape& shape) {
  if (states) {
    check_operand<Device>(*states, "initial_states", x, 3);
    check_rows(*states, "initial_states", {shape.N, shape.C, shape.pad_left});
  }
  // One position is the same in both layouts, and shorter channels last.
  return shape.W == 1 && x.stride(1) == 1 ? Layout::nhwc : layout_of_rows(x);
}

template <class Device>
Tensor causal_conv1d(Tensor x, Tensor weight, std::optional<Tensor> bias, std::optional<Tensor> initial_states,
                     std::optional<Tensor> seq_idx, int64_t dilation, int64_t activation) {
  check_operand<Device>(x, "x", x, 3);
  Sequence sequence = {};
  Buffers buffers;
  const Parameters parameters = Parameters::of(x, weight, bias, dilation, activation, sequence, buffers, Device());
  const Shape& shape = parameters.shape;
  const Layout layout = place<Device>(x, initial_states, shape);
  const std::optional<Tensor> reach = reach_of<Device>(seq_idx, x, shape);
  const Tensor rows = with_dense_rows(x, layout);
  Tensor states;
  Tensor output = empty_rows(x, sizes_of_rows(x), layout_of_rows(x));
  if (output.numel() == 0) return output;
  if (initial_states) states = dense_states(*initial_states, layout), sequence.states = states.const_data_ptr();
  if (reach) sequence.reach = static_cast<const int32_t*>(reach->const_data_ptr());
  sequence.input = steps_of_rows(rows, layout);
  buffers.input = rows.const_data_ptr();
  buffers.result = output.mutable_data_ptr();
  Device::run(Operation::sequence, layout, x, shape, buffers);
  return output;
}

template <class Device>
std::tuple<Tensor, Tensor, Tensor, Tensor> causal_conv1d_backward(Tensor grad_output, Tensor x, Tensor weight,
                                                                  std::optional<Tensor> bias,
                                                                  std::optional<Tensor> initial_states,
                                                                  std::optional<Tensor> seq_idx, int64_t dilation,
                                                                  int64_t activation) {
  check_operand<Device>(x, "x", x, 3);
  Sequence sequence = {};
  Buffers buffers;
  const Parameters parameters = Parameters::of(x, weight, bias, dilation, activation, sequence, buffers, Device());
  const Shape& shape = parameters.shape;
  check_operand<Device>(grad_output, "grad_output", x, 3);
  check_rows(grad_output, "grad_output", sizes_of_rows(x));
  const Layout layout = place<Device>(x, initial_states, shape);
  const std::optional<Tensor> reach = reach_of<Device>(seq_idx, x, shape);
  const Tensor rows = with_dense_rows(x, layout), grad_rows = with_dense_rows(grad_output, layout);
  Tensor states, grad_states = empty_vector(x, 0), grad_bias = empty_vector(bias ? *bias : x, bias ? shape.C : 0);
  if (initial_states) {
    states = dense_states(*initial_states, layout);
    grad_states = empty_rows(states, sizes_of_rows(states), layout);
    sequence.states = states.const_data_ptr(), sequence.grad_states = grad_states.mutable_data_ptr();
  }
  Tensor grad_x = empty_rows(x, sizes_of_rows(x), layout_of_rows(x));
  Tensor grad_weight = torch::stable::empty_like(parameters.weight);
  if (x.numel() == 0) {
    torch::stable::zero_(grad_weight), torch::stable::zero_(grad_bias), torch::stable::zero_(grad_states);
    return {grad_x, grad_weight, grad_bias, grad_states};
  }
  if (reach) sequence.reach = static_cast<const int32_t*>(reach->const_data_ptr());
  sequence.input = steps_of_rows(rows, layout), sequence.grad_output = steps_of_rows(grad_rows, layout);
  buffers.input = rows.const_data_ptr();
  buffers.grad_output = grad_rows.const_data_ptr();
  buffers.result = grad_x.mutable_data_ptr();
  buffers.grad_weight = grad_weight.mutable_data_ptr();
  buffers.grad_bias = bias ? grad_bias.mutable_data_ptr() : nullptr;
  Device::run(Operation::sequence_backward, layout, x, shape, buffers);
  return {grad_x, grad_weight, grad_bias, grad_states};
}

// Bytes from the first to behind the last element.
std::pair<uintptr_t, uintptr_t> extent(const Tensor& tensor) {
  int64_t last = 0;
  for (int64_t d = 0; d < tensor.dim(); ++d) last += (tensor.size(d) - 1) * tensor.stride(d);
  const auto begin = reinterpret_cast<uintptr_t>(tensor.const_data_ptr());
  return {begin, begin + uintptr_t((last + 1) * int64_t(tensor.element_size()))};
}

// Whether no element lies where another one does: each dimension steps over all that the closer ones take.
bool is_apart(const Tensor& tensor) {
  std::array<std::pair<int64_t, int64_t>, 3> dims;
  for (int d = 0; d < 3; ++d) dims[size_t(d)] = {tensor.stride(d), tensor.size(d)};
  std::sort(dims.begin(), dims.end());
  int64_t taken = 1;
  for (const auto& [stride, size] : dims) {
    if (size == 1) continue;
    if (stride < taken) return false;
    taken = stride * (size - 1) + taken;
  }
  return true;
}

// Which row of the cache each image has: no row twice, since each is written.
void check_rows_of_cache(const int32_t* rows, int64_t images, int64_t count) {
  std::vector<int32_t> sorted;
  for (int64_t n = 0; n < images; ++n) {
    STD_TORCH_CHECK(rows[n] < count, "torch_dwconv: conv_state_indices must be below the ", count,
                    " rows of conv_state, or negative for padding, got ", rows[n]);
    if (rows[n] >= 0) sorted.push_back(rows[n]);
  }
  std::sort(sorted.begin(), sorted.end());
  const auto twice = std::adjacent_find(sorted.begin(), sorted.end());
  STD_TORCH_CHECK(twice == sorted.end(), "torch_dwconv: conv_state_indices must not name a row twice, got ", *twice,
                  " twice");
}

template <class Device>
Tensor causal_conv1d_update(Tensor x, Tensor conv_state, Tensor weight, std::optional<Tensor> bias,
                            std::optional<Tensor> cache_seqlens, std::optional<Tensor> conv_state_indices,
                            int64_t activation) {
  const int64_t dim = x.dim();
  STD_TORCH_CHECK(dim == 2 || dim == 3, "torch_dwconv: x must have 2 or 3 dimensions, got ", dim);
  check_operand<Device>(x, "x", x, dim);
  Sequence sequence = {};
  Buffers buffers;
  const Parameters parameters = Parameters::of(x, weight, bias, 1, activation, sequence, buffers, Device());
  const Shape& shape = parameters.shape;
  check_operand<Device>(conv_state, "conv_state", x, 3);
  const int64_t rows = conv_state.size(0), length = conv_state.size(2);
  STD_TORCH_CHECK(conv_state.size(1) == shape.C && length >= shape.pad_left && (conv_state_indices || rows >= shape.N),
                  "torch_dwconv: conv_state must be (", shape.N, " or more, ", shape.C, ", ", shape.pad_left,
                  " or more), got (", rows, ", ", conv_state.size(1), ", ", length, ")");
  std::optional<Tensor> begins, indices;
  if (cache_seqlens) {
    check_integers<Device>(*cache_seqlens, "cache_seqlens", x, {shape.N});
    STD_TORCH_CHECK(length > 0, "torch_dwconv: a ring needs a conv_state of one position or more");
    begins = dense_parameter(*cache_seqlens);
    sequence.cache.begins = static_cast<const int32_t*>(begins->const_data_ptr());
  }
  if (conv_state_indices) {
    check_integers<Device>(*conv_state_indices, "conv_state_indices", x, {shape.N});
    indices = dense_parameter(*conv_state_indices);
    sequence.cache.rows = static_cast<const int32_t*>(indices->const_data_ptr());
    check_rows_of_cache(sequence.cache.rows, shape.N, rows);
  }
  Tensor output = empty_rows(x, sizes_of_rows(x), Layout::nchw, dim);
  if (output.numel() == 0) return output;
  if (conv_state.numel() > 0) {
    STD_TORCH_CHECK(is_apart(conv_state), "torch_dwconv: elements of conv_state must not share memory");
    const auto state = extent(conv_state);
    const auto apart = [&](const Tensor& other) {
      const auto range = extent(other);
      return range.second <= state.first || state.second <= range.first;
    };
    STD_TORCH_CHECK(apart(x) && apart(parameters.weight) && (!bias || apart(*parameters.bias)),
                    "torch_dwconv: conv_state must not share memory with another argument");
  }
  sequence.input = {x.stride(0), x.stride(1)}, sequence.input_position = dim == 2 ? 1 : x.stride(2);
  Sequence::Cache& cache = sequence.cache;
  cache.memory = conv_state.mutable_data_ptr(), cache.length = length;
  cache.row_step = conv_state.stride(0), cache.channel_step = conv_state.stride(1);
  cache.position_step = conv_state.stride(2);
  buffers.input = x.const_data_ptr();
  buffers.result = output.mutable_data_ptr();
  Device::run(Operation::sequence_step, Layout::nchw, x, shape, buffers);
  return output;
}

}  // namespace
}  // namespace dwconv
