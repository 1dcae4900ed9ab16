// Lines of the registry. A body is a class template on the element type with supports, workspace_bytes and launch, as
// kernel.h describes them, and may set kComputeCapability where it needs more than the oldest device.
#pragma once
#include <iterator>

#include "device.cuh"
#include "registry.h"

namespace dwconv::cuda {

template <class Body>
constexpr int compute_capability_of() {
  if constexpr (requires { Body::kComputeCapability; }) return Body::kComputeCapability;
  return kOldestDevice;
}

template <class Body>
constexpr Kernel make_kernel(const char* name, Map map, DType dtype, Layout layout) {
  return {name, map, dtype, layout, compute_capability_of<Body>(), Body::supports, Body::workspace_bytes, Body::launch};
}

}  // namespace dwconv::cuda

#define DWCONV_CUDA_KERNEL(map, layout, kind, Body, T, dtype) \
  make_kernel<Body<T>>(#map "_" #layout "_" #dtype "_" #kind "_cuda", Map::map, DType::dtype, Layout::layout)

// One line for each dtype, and one for each that accumulates in float32.
#define DWCONV_CUDA_DTYPES(map, layout, kind, Body)                                                                  \
  DWCONV_CUDA_KERNEL(map, layout, kind, Body, float, f32), DWCONV_CUDA_KERNEL(map, layout, kind, Body, double, f64), \
      DWCONV_CUDA_KERNEL(map, layout, kind, Body, bf16, bf16), DWCONV_CUDA_KERNEL(map, layout, kind, Body, f16, f16)
#define DWCONV_CUDA_FLOATS(map, layout, kind, Body)                                                                 \
  DWCONV_CUDA_KERNEL(map, layout, kind, Body, float, f32), DWCONV_CUDA_KERNEL(map, layout, kind, Body, bf16, bf16), \
      DWCONV_CUDA_KERNEL(map, layout, kind, Body, f16, f16)
