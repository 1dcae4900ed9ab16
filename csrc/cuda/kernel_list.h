// Lines of a family's list. A body is a class template on the element type with supports and launch, as kernel.h describes
// them. It may have workspace_bytes, kComputeCapability where it needs more than the oldest device, and
// kShortActivationsOnly, after which its launch sees no other activation.
#pragma once
#include <iterator>

#include "device/device.cuh"
#include "registry.h"

namespace dwconv::cuda {

template <class Body>
constexpr int compute_capability_of() {
  if constexpr (requires { Body::kComputeCapability; }) return Body::kComputeCapability;
  return kOldestDevice;
}

template <class Body>
constexpr bool short_activations_only() {
  if constexpr (requires { Body::kShortActivationsOnly; }) return Body::kShortActivationsOnly;
  return false;
}

template <class Body>
constexpr int64_t (*workspace_bytes_of())(const Shape&) {
  if constexpr (requires { Body::workspace_bytes; }) return Body::workspace_bytes;
  return nullptr;
}

template <class Body>
const char* launch_body(const Shape& shape, const Buffers& buffers, Stream stream) {
  if (short_activations_only<Body>() && !is_short(buffers.activation)) return kShortActivationsOnly;
  return Body::launch(shape, buffers, stream);
}

template <class Body>
constexpr Kernel make_kernel(const char* name, const char* method, Operation operation, DType dtype, Layout layout) {
  return {name,
          method,
          operation,
          dtype,
          layout,
          compute_capability_of<Body>(),
          Body::supports,
          short_activations_only<Body>(),
          workspace_bytes_of<Body>(),
          launch_body<Body>};
}

template <int n>
constexpr KernelList list_of(const Kernel (&kernels)[n]) {
  return {kernels, kernels + n};
}

template <int n>
constexpr PreferenceList list_of(const Preference (&preferences)[n]) {
  return {preferences, preferences + n};
}

}  // namespace dwconv::cuda

// A line: Body<T, arguments...>. `sizes` ends the name, as "_k3s1", or is "".
#define DWCONV_CUDA_KERNEL(operation, layout, method, sizes, T, dtype, Body, ...)                              \
  make_kernel<Body<T __VA_OPT__(, ) __VA_ARGS__>>(#operation "_" #layout "_" #dtype "_" #method sizes "_cuda", \
                                                  #method, Operation::operation, DType::dtype, Layout::layout)

// Those for 3x3, 5x5 and 7x7 at a stride, of Body<T, size, stride, arguments...>.
#define DWCONV_CUDA_SIZES(operation, layout, method, S, Body, ...)                                     \
  DWCONV_CUDA_FLOATS(operation, layout, method, "_k3s" #S, Body, 3, S __VA_OPT__(, ) __VA_ARGS__),     \
      DWCONV_CUDA_FLOATS(operation, layout, method, "_k5s" #S, Body, 5, S __VA_OPT__(, ) __VA_ARGS__), \
      DWCONV_CUDA_FLOATS(operation, layout, method, "_k7s" #S, Body, 7, S __VA_OPT__(, ) __VA_ARGS__)

// One line for each dtype, and one for each that accumulates in float32.
#define DWCONV_CUDA_DTYPES(operation, layout, method, sizes, ...)    \
  DWCONV_CUDA_FLOATS(operation, layout, method, sizes, __VA_ARGS__), \
      DWCONV_CUDA_KERNEL(operation, layout, method, sizes, double, f64, __VA_ARGS__)
#define DWCONV_CUDA_FLOATS(operation, layout, method, sizes, ...)                \
  DWCONV_CUDA_KERNEL(operation, layout, method, sizes, float, f32, __VA_ARGS__), \
      DWCONV_CUDA_HALVES(operation, layout, method, sizes, __VA_ARGS__)
#define DWCONV_CUDA_HALVES(operation, layout, method, sizes, ...)                \
  DWCONV_CUDA_KERNEL(operation, layout, method, sizes, bf16, bf16, __VA_ARGS__), \
      DWCONV_CUDA_KERNEL(operation, layout, method, sizes, f16, f16, __VA_ARGS__)
