// What a CUDA kernel is to the rest of the library: as csrc/kernel.h says it for the CPU, with a launch for the stages.
//
// A kernel sees device pointers, a Shape and a stream. It never sees a tensor, allocates memory, waits for the device or
// changes its state: a launch can be captured in a CUDA graph. It runs on the current device. Buffers are dense, in the
// kernel's layout, and aligned to their element; a kernel uses wider accesses where addresses and sizes allow. The same
// launch gives the same bits: nothing is divided by the number of multiprocessors, no sum is left to the order of atomics.
// A workspace is aligned to 256 bytes.
//
// No CUDA header is needed here, nor by who calls.
#pragma once
#include <cstdint>

#include "../kernel.h"

struct CUstream_st;  // what a cudaStream_t points to

namespace dwconv::cuda {

using Stream = ::CUstream_st*;

// The compute capability from which on there are kernels: 7.5.
constexpr int kOldestDevice = 75;

// Whether an activation is a few instructions, or none.
constexpr bool is_short(Activation activation) {
  return activation == Activation::none || activation == Activation::relu || activation == Activation::relu6 ||
         activation == Activation::hardswish;
}
constexpr const char* kShortActivationsOnly = "it computes ReLU, ReLU6 and Hardswish only";

struct Kernel {
  const char* name;
  Operation operation;
  DType dtype;
  Layout layout;
  int compute_capability;                    // the lowest it runs on: 75 is 7.5
  const char* (*supports)(const Shape&);     // nullptr, or the reason this kernel refuses the shape
  bool short_activations_only;               // the others are refused, by `launch` too
  int64_t (*workspace_bytes)(const Shape&);  // null: needs none
  // Puts the work on the stream. nullptr, or the error of the launch. Empty problems launch nothing but what still has
  // to be written (the gradient of a weight that no output uses is zero).
  const char* (*launch)(const Shape&, const Buffers&, Stream);
};

struct KernelList {
  const Kernel* begin_;
  const Kernel* end_;
  const Kernel* begin() const { return begin_; }
  const Kernel* end() const { return end_; }
};

// Every kernel, best first within a operation, dtype and layout. The last of each takes every shape on every device, but of
// backward, which two other operations stand for.
KernelList kernels();

// The first that takes the shape and the activation on a device of this compute capability (90: 9.0); null, which happens
// to backward alone, if none does. Maps but forward have no activation.
const Kernel* select(Operation operation, DType dtype, Layout layout, const Shape& shape, Activation activation,
                     int compute_capability);

// Why the kernel does not take them, in words for the user; nullptr if it does.
const char* refusal(const Kernel& kernel, const Shape& shape, Activation activation, int compute_capability);

}  // namespace dwconv::cuda
