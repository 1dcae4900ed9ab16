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
  const char* method;  // of the name, the word after the dtype: "stream" of forward_nchw_f32_stream_k3s1_cuda
  Operation operation;
  DType dtype;
  Layout layout;
  // What it can compute. Which of those that can is chosen is said by the families' tables of preferences.
  int compute_capability;                 // the lowest it runs on: 75 is 7.5
  const char* (*supports)(const Shape&);  // nullptr, or why it cannot compute the shape
  bool short_activations_only;            // the others are refused, by `launch` too

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

// What is asked for: the choice of a kernel sees nothing else.
struct Request {
  Operation operation;
  DType dtype;
  Layout layout;
  const Shape& shape;
  Activation activation;   // none for all operations but forward
  int compute_capability;  // of the device
};

// A row of a family's table (its choice.h): kernels of this method are passed over where the function says so, though they
// support the shape.
struct Preference {
  const char* method;
  bool (*passed_over)(const Request&);
  const char* because;  // for the user: what was measured or counted
};

struct PreferenceList {
  const Preference* begin_;
  const Preference* end_;
  const Preference* begin() const { return begin_; }
  const Preference* end() const { return end_; }
};

// Every kernel, best first within an operation, dtype and layout. The last of each takes every shape on every device and is
// never passed over, but of backward, which two other operations stand for.
KernelList kernels();

// The first that takes the request and that no table passes over; null, which happens to backward alone, if there is none.
const Kernel* select(const Request& request);

// Why the kernel, which is for this operation, dtype and layout, cannot do it, in words for the user; nullptr if it can.
const char* refusal(const Kernel& kernel, const Request& request);

// "supports, but: " and why a table passes the kernel over, nullptr if none does. Asked of kernels that do not refuse.
const char* passed_over(const Kernel& kernel, const Request& request);

}  // namespace dwconv::cuda
