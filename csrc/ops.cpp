// The three operators on CPU tensors: check, turn tensors into pointers and a Shape, pick a kernel, run it.
//
// Nothing here computes, and nothing below here knows a tensor. The operators are also called directly, by exported and
// compiled graphs, so every check that memory safety needs is made here, whatever Python checked before. Derivatives,
// fake tensors and vmap are registered from Python (torch_dwconv/library.py).
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/MemoryFormat.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <array>
#include <exception>
#include <optional>
#include <tuple>
#include <utility>

#include "cpu/registry.h"
#include "geometry.h"

namespace dwconv {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Sizes = std::array<int64_t, 4>;
// A tensor of the caller's that a result is to be written to, or none.
using Out = std::optional<Tensor>;

// Below this many multiply-adds a call costs less than sharing it with the other threads. Measured with two threads on
// Zen 5: 3x3 and 7x7 layers break even between 2^17 and 2^19, where a call takes 6 to 9 us.
constexpr double kSerialWork = 262144;

constexpr int64_t kLastActivation = int64_t(Activation::gelu_tanh);

// Bytes of workspace that need no allocation.
constexpr int64_t kStackWorkspace = 32768;

DType dtype_of(const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float: return DType::f32;
    case ScalarType::Double: return DType::f64;
    case ScalarType::BFloat16: return DType::bf16;
    case ScalarType::Half: return DType::f16;
    default: break;
  }
  STD_TORCH_CHECK(false, "torch_dwconv: tensors must be float32, float64, bfloat16 or float16");
}

void check_operand(const Tensor& tensor, const char* name, const Tensor& first, int64_t dim) {
  STD_TORCH_CHECK(tensor.dim() == dim, "torch_dwconv: ", name, " must have ", dim, " dimensions, got ", tensor.dim());
  STD_TORCH_CHECK(tensor.is_cpu(), "torch_dwconv: ", name, " must be on the CPU");
  STD_TORCH_CHECK(tensor.scalar_type() == first.scalar_type(), "torch_dwconv: ", name,
                  " must have the dtype of the other operands");
  STD_TORCH_CHECK(tensor.const_data_ptr() || tensor.numel() == 0, "torch_dwconv: the storage of ", name,
                  " has been freed");
}

void check_size(const Tensor& tensor, const char* name, const Sizes& expected) {
  const auto got = tensor.sizes();
  STD_TORCH_CHECK(std::equal(expected.begin(), expected.end(), got.begin()), "torch_dwconv: ", name, " must be (",
                  expected[0], ", ", expected[1], ", ", expected[2], ", ", expected[3], "), got (", got[0], ", ",
                  got[1], ", ", got[2], ", ", got[3], ")");
}

// A kernel may read an operand again after it has begun to write. All of these are dense.
void check_apart(const Tensor& out, const char* name, std::initializer_list<const Tensor*> operands) {
  const auto range = [](const Tensor& tensor) {
    const auto begin = reinterpret_cast<uintptr_t>(tensor.const_data_ptr());
    return std::pair(begin, begin + tensor.numel() * tensor.element_size());
  };
  const auto [begin, end] = range(out);
  for (const Tensor* operand : operands) {
    const auto [operand_begin, operand_end] = range(*operand);
    STD_TORCH_CHECK(end <= operand_begin || operand_end <= begin, "torch_dwconv: ", name,
                    " must not share memory with another argument");
  }
}

Sizes input_sizes(const Shape& s) { return {s.N, s.C, s.H, s.W}; }
Sizes output_sizes(const Shape& s) { return {s.N, s.out_channels(), s.OH, s.OW}; }
Sizes weight_sizes(const Shape& s) { return {s.out_channels(), 1, s.KH, s.KW}; }

// M of C*M = out_channels.
int64_t multiplier(int64_t out_channels, int64_t in_channels) {
  const bool divides = in_channels > 0 ? out_channels % in_channels == 0 : out_channels == 0;
  STD_TORCH_CHECK(divides, "torch_dwconv: the number of output channels must be a multiple of the ", in_channels,
                  " input channels, got ", out_channels);
  return in_channels > 0 ? out_channels / in_channels : 1;
}

// The strides of torch.empty(sizes, memory_format=...).
Sizes dense_strides(const Sizes& z, Layout layout) {
  if (layout == Layout::nhwc) return {z[1] * z[3] * z[2], 1, z[1] * z[3], z[1]};
  const Sizes m = {1, std::max<int64_t>(z[1], 1), std::max<int64_t>(z[2], 1), std::max<int64_t>(z[3], 1)};
  return {m[1] * m[2] * m[3], m[2] * m[3], m[3], 1};
}

Tensor allocate(const int64_t* sizes, const int64_t* strides, int64_t dim, int32_t dtype) {
  AtenTensorHandle handle = nullptr;
  TORCH_ERROR_CODE_CHECK(
      aoti_torch_empty_strided(dim, sizes, strides, dtype, aoti_torch_device_type_cpu(), 0, &handle));
  return Tensor(handle);
}

Tensor empty_like_dtype(const Tensor& like, const Sizes& sizes, Layout layout) {
  int32_t dtype = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(like.get(), &dtype));
  return allocate(sizes.data(), dense_strides(sizes, layout).data(), 4, dtype);
}

Tensor empty_vector(const Tensor& like, int64_t size) {
  int32_t dtype = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(like.get(), &dtype));
  const int64_t stride = 1;
  return allocate(&size, &stride, 1, dtype);
}

Sizes sizes_of(const Tensor& tensor) {
  Sizes sizes;
  std::copy_n(tensor.sizes().begin(), 4, sizes.begin());
  return sizes;
}

// Whether the elements lie in memory as `layout` has them.
bool is_dense(const Tensor& tensor, Layout layout) {
  const Sizes sizes = sizes_of(tensor), wanted = dense_strides(sizes, layout);
  const auto strides = tensor.strides();
  bool same = true;
  for (int d = 0; d < 4; ++d) same = same && (sizes[d] == 1 || strides[d] == wanted[d]);
  return same || tensor.numel() == 0;
}

// The tensor itself if it is dense in `layout`, otherwise a copy that is.
Tensor dense(const Tensor& tensor, Layout layout) {
  if (is_dense(tensor, layout)) return tensor;
  Tensor copy = empty_like_dtype(tensor, sizes_of(tensor), layout);
  torch::stable::copy_(copy, tensor);
  return copy;
}

// What a result is written to: `out`, which must be as it would have been allocated and apart from what is read, or a
// new tensor.
Tensor result_tensor(const Out& out, const Tensor& like, const Sizes& sizes, Layout layout,
                     std::initializer_list<const Tensor*> operands) {
  if (!out) return empty_like_dtype(like, sizes, layout);
  check_operand(*out, "out", like, 4);
  check_size(*out, "out", sizes);
  STD_TORCH_CHECK(is_dense(*out, layout), "torch_dwconv: out must be ",
                  layout == Layout::nhwc ? "channels_last" : "contiguous", ", the memory format of the result");
  check_apart(*out, "out", operands);
  return *out;
}

Tensor result_vector(const Out& out, const Tensor& like, int64_t size, std::initializer_list<const Tensor*> operands) {
  if (!out) return empty_vector(like, size);
  check_operand(*out, "bias_out", like, 1);
  STD_TORCH_CHECK(out->size(0) == size && (size <= 1 || out->stride(0) == 1), "torch_dwconv: bias_out must be (", size,
                  ",) and contiguous, got (", out->size(0), ",)");
  check_apart(*out, "bias_out", operands);
  return *out;
}

Layout layout_of(bool channels_last) { return channels_last ? Layout::nhwc : Layout::nchw; }

// NHWC if that is how the strides walk the tensor: channels closest together.
Layout layout_of(const Tensor& tensor) {
  const auto sizes = tensor.sizes();
  const auto strides = tensor.strides();
  const bool channels_inside = strides[1] < strides[3] && sizes[1] > 1 && (sizes[2] > 1 || sizes[3] > 1);
  return channels_inside ? Layout::nhwc : Layout::nchw;
}

void run_stage(const Stage& stage, const Shape& shape, const Buffers& buffers) {
  const int64_t items = stage.items(shape);
  const double work = shape.work();
  if (items <= 1 || work < kSerialWork) {
    if (items > 0) stage.run(shape, buffers, 0, items);
    return;
  }
  // Every chunk that a thread is given holds at least half of what would have been done serially.
  const int64_t grain = std::max<int64_t>(1, int64_t(double(items) * (kSerialWork / 2) / work));
  torch::stable::parallel_for(0, items, grain,
                              [&](int64_t begin, int64_t end) { stage.run(shape, buffers, begin, end); });
}

// The size is in the message for Python, which can repeat the allocation and let PyTorch say why it fails.
Tensor allocate_workspace(int64_t bytes) {
  const int64_t stride = 1;
  try {
    return allocate(&bytes, &stride, 1, aoti_torch_dtype_uint8());
  } catch (const std::exception& error) {
    STD_TORCH_CHECK(false, "torch_dwconv: no memory for a workspace of ", bytes, " bytes: ", error.what());
  }
}

void run(Map map, Layout layout, const Tensor& like, const Shape& asked, Buffers buffers) {
  const Shape shape = without_empty_rows(asked);
  if (results(map, shape) == 0) return;
  const Kernel& kernel = select(map, dtype_of(like), layout, shape);
  const int64_t bytes = kernel.workspace_bytes ? kernel.workspace_bytes(shape) : 0;
  // A small one costs less on the stack than the allocation does.
  alignas(64) unsigned char small[kStackWorkspace];
  std::optional<Tensor> workspace;
  if (bytes <= kStackWorkspace) {
    buffers.workspace = small;
  } else {
    workspace = allocate_workspace(bytes);
    buffers.workspace = workspace->mutable_data_ptr();
  }
  for (const Stage& stage : kernel.stages) {
    if (!stage.run) break;
    run_stage(stage, shape, buffers);
  }
}

Tensor forward(const Out& out, const Tensor& input, const Tensor& weight, std::optional<Tensor> bias, int64_t out_h,
               int64_t out_w, int64_t stride_h, int64_t stride_w, int64_t pad_top, int64_t pad_left, int64_t dilation_h,
               int64_t dilation_w, bool channels_last, int64_t activation) {
  check_operand(input, "input", input, 4);
  check_operand(weight, "weight", input, 4);
  STD_TORCH_CHECK(activation >= 0 && activation <= kLastActivation, "torch_dwconv: activation must be 0 (none) to ",
                  kLastActivation, ", got ", activation);
  const int64_t C = input.size(1), M = multiplier(weight.size(0), C);
  const Shape shape = {input.size(0),  C,       M,       input.size(2), input.size(3), weight.size(2),
                       weight.size(3), out_h,   out_w,   stride_h,      stride_w,      dilation_h,
                       dilation_w,     pad_top, pad_left};
  check_geometry(shape);
  check_size(weight, "weight", weight_sizes(shape));
  if (bias) {
    check_operand(*bias, "bias", input, 1);
    STD_TORCH_CHECK(bias->size(0) == shape.out_channels(), "torch_dwconv: bias must have one value for each of the ",
                    shape.out_channels(), " output channels, got ", bias->size(0));
  }
  const Layout layout = layout_of(channels_last);
  const Tensor x = dense(input, layout), w = dense(weight, Layout::nchw);
  Tensor b;
  if (bias) b = bias->stride(0) == 1 || bias->size(0) <= 1 ? *bias : torch::stable::clone(*bias);
  Tensor output = result_tensor(out, input, output_sizes(shape), layout, {&x, &w, bias ? &b : &x});
  Buffers buffers;
  buffers.input = x.const_data_ptr();
  buffers.weight = w.const_data_ptr();
  buffers.bias = bias ? b.const_data_ptr() : nullptr;
  buffers.activation = Activation(activation);
  buffers.result = output.mutable_data_ptr();
  run(Map::forward, layout, input, shape, buffers);
  return output;
}

Tensor grad_input(const Out& out, const Tensor& grad_output, const Tensor& weight, int64_t in_channels, int64_t in_h,
                  int64_t in_w, int64_t stride_h, int64_t stride_w, int64_t pad_top, int64_t pad_left,
                  int64_t dilation_h, int64_t dilation_w, bool channels_last) {
  check_operand(grad_output, "grad_output", grad_output, 4);
  check_operand(weight, "weight", grad_output, 4);
  STD_TORCH_CHECK(in_channels >= 0, "torch_dwconv: in_channels must not be negative, got ", in_channels);
  const int64_t M = multiplier(weight.size(0), in_channels);
  const Shape shape = {grad_output.size(0),
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
  const Layout layout = layout_of(channels_last);
  const Tensor g = dense(grad_output, layout), w = dense(weight, Layout::nchw);
  Tensor result = result_tensor(out, grad_output, input_sizes(shape), layout, {&g, &w});
  Buffers buffers;
  buffers.grad_output = g.const_data_ptr();
  buffers.weight = w.const_data_ptr();
  buffers.result = result.mutable_data_ptr();
  run(Map::grad_input, layout, grad_output, shape, buffers);
  return result;
}

std::tuple<Tensor, Tensor> grad_weight(const Out& out, const Out& bias_out, const Tensor& input,
                                       const Tensor& grad_output, int64_t kernel_h, int64_t kernel_w, int64_t stride_h,
                                       int64_t stride_w, int64_t pad_top, int64_t pad_left, int64_t dilation_h,
                                       int64_t dilation_w, bool with_bias, bool channels_last) {
  check_operand(input, "input", input, 4);
  check_operand(grad_output, "grad_output", input, 4);
  const int64_t C = input.size(1), M = multiplier(grad_output.size(1), C);
  const Shape shape = {
      input.size(0),       C,        M,        input.size(2), input.size(3), kernel_h, kernel_w, grad_output.size(2),
      grad_output.size(3), stride_h, stride_w, dilation_h,    dilation_w,    pad_top,  pad_left};
  check_geometry(shape);
  check_size(grad_output, "grad_output", output_sizes(shape));
  const Layout layout = layout_of(input);
  const Tensor x = dense(input, layout), g = dense(grad_output, layout);
  // One channel a filter: both memory formats lay the same elements out in the same order.
  Tensor result = result_tensor(out, input, weight_sizes(shape), layout_of(channels_last), {&x, &g});
  Tensor grad_bias = result_vector(bias_out, input, with_bias ? shape.out_channels() : 0, {&x, &g, &result});
  Buffers buffers;
  buffers.input = x.const_data_ptr();
  buffers.grad_output = g.const_data_ptr();
  buffers.result = result.mutable_data_ptr();
  buffers.grad_bias = with_bias ? grad_bias.mutable_data_ptr() : nullptr;
  run(Map::grad_weight, layout, input, shape, buffers);
  return {result, grad_bias};
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

}  // namespace
}  // namespace dwconv

// Sizes and padding are SymInt, so that graphs with dynamic shapes can carry them; stride, dilation and the number of
// arguments are plain integers, which cost a call least. channels_last is the memory format of the result. The out
// overloads are for eager code that owns its buffers: they have no derivative and no fake kernel.
#define FORWARD_ARGUMENTS                                                                               \
  "Tensor input, Tensor weight, Tensor? bias, SymInt out_h, SymInt out_w, int stride_h, int stride_w, " \
  "SymInt pad_top, SymInt pad_left, int dilation_h, int dilation_w, bool channels_last, int activation=0"
#define GRAD_INPUT_ARGUMENTS                                                                        \
  "Tensor grad_output, Tensor weight, SymInt in_channels, SymInt in_h, SymInt in_w, int stride_h, " \
  "int stride_w, SymInt pad_top, SymInt pad_left, int dilation_h, int dilation_w, bool channels_last"
#define GRAD_WEIGHT_ARGUMENTS                                                                        \
  "Tensor input, Tensor grad_output, SymInt kernel_h, SymInt kernel_w, int stride_h, int stride_w, " \
  "SymInt pad_top, SymInt pad_left, int dilation_h, int dilation_w, bool with_bias, bool channels_last"

STABLE_TORCH_LIBRARY(torch_dwconv, m) {
  m.def("forward(" FORWARD_ARGUMENTS ") -> Tensor");
  m.def("forward.out(" FORWARD_ARGUMENTS ", *, Tensor(a!) out) -> Tensor(a!)");
  m.def("grad_input(" GRAD_INPUT_ARGUMENTS ") -> Tensor");
  m.def("grad_input.out(" GRAD_INPUT_ARGUMENTS ", *, Tensor(a!) out) -> Tensor(a!)");
  m.def("grad_weight(" GRAD_WEIGHT_ARGUMENTS ") -> (Tensor, Tensor)");
  m.def("grad_weight.out(" GRAD_WEIGHT_ARGUMENTS
        ", *, Tensor(a!) out, Tensor(b!) bias_out) -> (Tensor(a!), Tensor(b!))");
}

STABLE_TORCH_LIBRARY_IMPL(torch_dwconv, CPU, m) {
  m.impl("forward", TORCH_BOX(&dwconv::Overloads<dwconv::forward>::fresh));
  m.impl("forward.out", TORCH_BOX(&dwconv::Overloads<dwconv::forward>::out));
  m.impl("grad_input", TORCH_BOX(&dwconv::Overloads<dwconv::grad_input>::fresh));
  m.impl("grad_input.out", TORCH_BOX(&dwconv::Overloads<dwconv::grad_input>::out));
  m.impl("grad_weight", TORCH_BOX(&dwconv::Overloads<dwconv::grad_weight>::fresh));
  m.impl("grad_weight.out", TORCH_BOX(&dwconv::Overloads<dwconv::grad_weight>::out));
}
