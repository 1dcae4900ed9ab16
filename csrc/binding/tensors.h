// What the operators do with tensors before and beside the computing: every check that memory safety needs, dense
// operands, results. The same for all devices: a Device says which tensors are its own.
#pragma once
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <array>
#include <exception>
#include <initializer_list>
#include <optional>
#include <utility>

#include "../kernel.h"
#include "pages.h"

namespace dwconv {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Sizes = std::array<int64_t, 4>;
// A tensor of the caller's that a result is to be written to, or none.
using Out = std::optional<Tensor>;

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

template <class Device>
void check_operand(const Tensor& tensor, const char* name, const Tensor& first, int64_t dim) {
  STD_TORCH_CHECK(tensor.dim() == dim, "torch_dwconv: ", name, " must have ", dim, " dimensions, got ", tensor.dim());
  STD_TORCH_CHECK(Device::owns(tensor) && tensor.get_device() == first.get_device(), "torch_dwconv: ", name,
                  " must be ", Device::kPlace);
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

// On the device of `like`.
Tensor allocate(const Tensor& like, const int64_t* sizes, const int64_t* strides, int64_t dim, int32_t dtype) {
  int32_t device_type = 0, device_index = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(like.get(), &device_index));
  AtenTensorHandle handle = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(dim, sizes, strides, dtype, device_type, device_index, &handle));
  Tensor tensor(handle);
  const int64_t bytes = tensor.numel() * int64_t(tensor.element_size());
  if (bytes >= kLarge && tensor.is_cpu()) use_huge_pages(tensor.mutable_data_ptr(), bytes);
  return tensor;
}

Tensor empty_like_dtype(const Tensor& like, const Sizes& sizes, Layout layout) {
  int32_t dtype = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(like.get(), &dtype));
  return allocate(like, sizes.data(), dense_strides(sizes, layout).data(), 4, dtype);
}

Tensor empty_vector(const Tensor& like, int64_t size) {
  int32_t dtype = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(like.get(), &dtype));
  const int64_t stride = 1;
  return allocate(like, &size, &stride, 1, dtype);
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
template <class Device>
Tensor result_tensor(const Out& out, const Tensor& like, const Sizes& sizes, Layout layout,
                     std::initializer_list<const Tensor*> operands) {
  if (!out) return empty_like_dtype(like, sizes, layout);
  check_operand<Device>(*out, "out", like, 4);
  check_size(*out, "out", sizes);
  STD_TORCH_CHECK(is_dense(*out, layout), "torch_dwconv: out must be ",
                  layout == Layout::nhwc ? "channels_last" : "contiguous", ", the memory format of the result");
  check_apart(*out, "out", operands);
  return *out;
}

template <class Device>
Tensor result_vector(const Out& out, const Tensor& like, int64_t size, std::initializer_list<const Tensor*> operands) {
  if (!out) return empty_vector(like, size);
  check_operand<Device>(*out, "bias_out", like, 1);
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

// The size is in the message for Python, which can repeat the allocation and let PyTorch say why it fails.
Tensor allocate_workspace(const Tensor& like, int64_t bytes) {
  const int64_t stride = 1;
  try {
    return allocate(like, &bytes, &stride, 1, aoti_torch_dtype_uint8());
  } catch (const std::exception& error) {
    STD_TORCH_CHECK(false, "torch_dwconv: no memory for a workspace of ", bytes, " bytes: ", error.what());
  }
}

}  // namespace
}  // namespace dwconv
