// What a kernel is to the rest of the library: a name, what it computes, when it applies, and how to run it.
//
// A kernel sees raw pointers, a Shape and a range of work items. It never sees a tensor, allocates memory or starts a
// thread. The caller provides dense buffers in the kernel's layout, a workspace, and calls the stages in order, each
// over [0, items): in one call or in any partition of that range, in any order and on any threads. A stage begins when
// the one before it has ended. Results must not depend on the partition, to the last bit.
#pragma once
#include <cstdint>

#include "shape.h"

namespace dwconv {

// backward is both gradients in one pass over the tensors; only some CUDA kernels do that.
enum class Operation : int32_t { forward, grad_input, grad_weight, backward };
enum class DType : int32_t { f32, f64, bf16, f16 };
enum class Layout : int32_t { nchw, nhwc };
// In ascending order of preference on one machine; a machine has baseline and those of its architecture. Reference
// kernels count as baseline.
enum class Isa : int32_t { baseline, avx2, avx512, neon };

// What forward does to its sums, bias included, before it rounds and stores them: the functions of torch.nn.functional,
// gelu with approximate='none' and gelu_tanh with approximate='tanh'.
enum class Activation : int32_t { none, relu, relu6, hardswish, silu, gelu, gelu_tanh };

// Pointers to dense arrays, aligned to their element only. Unused ones are null.
//   operation          reads                       writes
//   forward      input, weight, [bias]       result = output
//   grad_input   grad_output, weight         result = grad_input
//   grad_weight  input, grad_output          result = grad_weight, [grad_bias]
//   backward     input, weight, grad_output  result = grad_input, grad_weight, [grad_bias]
// weight and grad_weight are (C*M, KH, KW) and bias (C*M) in either layout; workspace is aligned to 64 bytes.
struct Buffers {
  const void* input = nullptr;
  const void* weight = nullptr;
  const void* bias = nullptr;
  const void* grad_output = nullptr;
  void* result = nullptr;
  void* grad_weight = nullptr;  // of backward only
  void* grad_bias = nullptr;
  void* workspace = nullptr;
  Activation activation = Activation::none;  // forward only
};

struct Stage {
  int64_t (*items)(const Shape&) = nullptr;
  void (*run)(const Shape&, const Buffers&, int64_t begin, int64_t end) = nullptr;
};

struct Kernel {
  const char* name;
  Operation operation;
  DType dtype;
  Layout layout;
  Isa isa;
  const char* (*supports)(const Shape&);     // nullptr, or the reason this kernel refuses the shape
  int64_t (*workspace_bytes)(const Shape&);  // null: needs none
  static constexpr int kMaxStages = 3;
  Stage stages[kMaxStages];  // up to the first whose run is null
};

struct KernelList {
  const Kernel* begin_;
  const Kernel* end_;
  const Kernel* begin() const { return begin_; }
  const Kernel* end() const { return end_; }
};

}  // namespace dwconv
