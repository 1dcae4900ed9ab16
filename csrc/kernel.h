// What a kernel is to the rest of the library: a name, what it computes, what it can compute, and how to run it.
//
// A kernel sees raw pointers, a Shape and a range of work items. It never sees a tensor, allocates memory or starts a
// thread. A call goes like this:
//
//   Plan plan;
//   kernel.make_plan(shape, plan);                      // once; from here on the plan does not change
//   buffers.workspace = plan.workspace_bytes of memory
//   for each stage i:  kernel.run[i](plan, buffers, begin, end)   over [0, plan.items[i])
//
// A stage may run in one call or in any partition of its range, in any order and on any threads. It begins when the one
// before it has ended. Results must not depend on the partition, to the last bit.
#pragma once
#include <cstdint>

#include "shape.h"

namespace dwconv {

// Of the depthwise convolution: forward, its two gradients, and backward, both gradients in one pass over the tensors,
// which only some CUDA kernels do.
// Of what stands around it in a block, channels last and for inference:
//   dense          the convolution that mixes all channels (groups=1), from packed weights; 1x1 is the pointwise one
//   layer_norm     (x - mean) / sqrt(variance + epsilon) over the channels of a pixel
//   channel_scale  x times the scale of its image and channel
//   channel_sum    the sum of each channel of an image over its pixels
// Of BatchNorm with the activation behind it, for training; with s = weight / sqrt(variance + epsilon):
//   batch_norm                activation((x - mean) s + bias), with mean and variance of the batch, which are results too
//   batch_norm_backward       the gradients of its input, weight and bias
//   batch_norm_eval           the same with a mean and a variance that are given
//   batch_norm_eval_backward  its gradients, those two being constants
// Of the pointwise convolution (1x1, stride 1, groups=1) in training, from weights as PyTorch keeps them; each is a
// slot-gradient of one trilinear form, as the depthwise three are:
//   pointwise              the output
//   pointwise_grad_input   the gradient of the input
//   pointwise_grad_weight  the gradient of the weight
// Of sequences, rows that begin after the states of earlier ones (struct Sequence):
//   sequence           the causal depthwise convolution
//   sequence_backward  all its gradients in one pass over the tensors
//   sequence_step      the same convolution after positions that a cache holds, and the cache with the new ones
enum class Operation : int32_t {
  forward,
  grad_input,
  grad_weight,
  backward,
  dense,
  layer_norm,
  channel_scale,
  channel_sum,
  batch_norm,
  batch_norm_backward,
  batch_norm_eval,
  batch_norm_eval_backward,
  pointwise,
  pointwise_grad_input,
  pointwise_grad_weight,
  sequence,
  sequence_backward,
  sequence_step
};
constexpr int kOperations = int(Operation::sequence_step) + 1;
enum class DType : int32_t { f32, f64, bf16, f16 };
enum class Layout : int32_t { nchw, nhwc };
// In ascending order of preference on one machine; a machine has baseline and those of its architecture. Reference
// kernels count as baseline.
enum class Isa : int32_t { baseline, avx2, avx512, neon };

// What forward does to its sums, bias included, before it rounds and stores them: the functions of torch.nn.functional,
// gelu with approximate='none' and gelu_tanh with approximate='tanh'. The last two are the gates of squeeze-and-excite.
enum class Activation : int32_t { none, relu, relu6, hardswish, silu, gelu, gelu_tanh, hardsigmoid, sigmoid };

// What the operations of sequences are given beside Buffers. Their Shape is that of rows: H, KH and OH are 1, OW is W, and
// pad_left is the reach of the taps, R = (KW-1) * dilation_w. The states are the R positions before the first.
//
// input and grad_output need not be dense: their rows are, which are positions of a channel in NCHW, and channels of a
// position in NHWC. `step` elements further is the next row, `image` elements further the next image.
struct Sequence {
  // What there are kernels for; the operators compose the rest.
  static constexpr int64_t kMostTaps = 64, kMostReach = 512;

  struct Steps {
    int64_t image, step;
  };
  // (rows, C, length), of the input's type and any strides; length is R or more. The positions before an image are the
  // last of the row of the same number, or of row rows[n]: a negative one means that the image is padding, whose result
  // is zero. Afterwards the new ones are the last. With begins the row is a ring instead: begins[n] % length is where
  // the first new one goes.
  struct Cache {
    void* memory;
    int64_t length, row_step, channel_step, position_step;
    const int32_t* rows;
    const int32_t* begins;
  };
  Steps input, grad_output;
  bool wide_weight, wide_bias;  // in the accumulator's type, not in that of the input
  const void* states;           // (N, C, R) or null: zeros; in NHWC (N, R, C)
  void* grad_states;            // the same, or null
  // (N, W): how many positions before its own a result may look at, at most R; -1 if the result is zero. Null if all may
  // look at R. 64 bytes behind its end can be read.
  const int32_t* reach;
  Cache cache;             // of sequence_step only, which has neither states nor reach
  int64_t input_position;  // of sequence_step only: how far positions of a row of the input lie apart
};

// Pointers to dense arrays, aligned to their element only. Unused ones are null.
//   operation    reads                       writes
//   forward      input, weight, [bias]       result = output
//   grad_input   grad_output, weight         result = grad_input
//   grad_weight  input, grad_output          result = grad_weight, [grad_bias]
//   backward     input, weight, grad_output  result = grad_input, grad_weight, [grad_bias]
//   dense        input, weight, [bias], [residual]  result = activation(sums + bias + residual)
//   layer_norm, channel_sum  input           result
//   channel_scale  input, scale              result, which may be the input
//   batch_norm     input, [weight], [bias]   result, mean, variance
//   batch_norm_eval  input, [weight], [bias], mean, variance  result
//   batch_norm_backward, batch_norm_eval_backward
//                  input, grad_output, [weight], [bias], mean, variance  [result = grad_input], [grad_weight], [grad_bias]
//   pointwise    input, weight, [bias]       result = output
//   pointwise_grad_input   weight, grad_output  result = grad_input
//   pointwise_grad_weight  input, grad_output   result = grad_weight
//   sequence     input, weight, [bias]       result = output
//   sequence_backward  input, weight, [bias], grad_output  result = grad_input, grad_weight, [grad_bias]
//   sequence_step  input, weight, [bias]     result = output
// weight and grad_weight are (C*M, KH, KW) and bias (C*M) in either layout; workspace is aligned to 64 bytes.
//
// dense has one group: M is the number of output channels, bias (M) is in the accumulator's type, and there is no padding:
// every tap is inside. Weights lie in panels of 16 output channels, so that a row of a panel is whole vectors on every
// machine and a packed tensor is the same everywhere: with the taps (kh, kw, c) of an output counted as t,
//
//   f32, f16   weight[panel][t][lane]           = w[16*panel + lane, c, kh, kw], zero past the last output
//   bf16       weight[panel][s][pair][lane][2]  two taps that follow each other in a segment, zero past its end
//
// A segment is what lies next to each other in an NHWC input: KW*C taps of a row of the filter, C if it is dilated along
// the width. scale is (N, C) and the result of channel_sum (N, C), both in the accumulator's type.
//
// pointwise has the Shape of a dense one whose results are as many as its input's pixels. Its weight is (M, C).
//
// Of BatchNorm all but input, grad_output and result is (C) and in the accumulator's type. The variance divides by the
// number of values of a channel. The derivative of the activation is taken where forward applied it, which is computed
// again from the input.
struct Buffers {
  const void* input = nullptr;
  const void* weight = nullptr;
  const void* bias = nullptr;
  const void* grad_output = nullptr;
  void* result = nullptr;
  void* grad_weight = nullptr;  // of backward only
  void* grad_bias = nullptr;
  void* workspace = nullptr;
  Activation activation = Activation::none;  // of forward, dense, BatchNorm and sequences
  const void* residual = nullptr;
  const void* scale = nullptr;
  void* mean = nullptr;  // of BatchNorm: batch_norm writes them
  void* variance = nullptr;
  double epsilon = 0;
  const void* next = nullptr;  // what is read after this call, from memory: a kernel may fetch it on the way
  int64_t next_bytes = 0;
  const Sequence* sequence = nullptr;  // of the operations of sequences only, where it is never null
};

// What a kernel knows from the shape alone, and so for all items and all threads alike. Only the kernel that made it
// understands `state`. It lies where it was made: it may point into itself.
struct Plan {
  static constexpr int kMaxStages = 4;
  static constexpr int64_t kStateBytes = 32768;

  int64_t workspace_bytes;
  int64_t items[kMaxStages];  // of each stage; 0 where there is nothing to do
  alignas(64) unsigned char state[kStateBytes];

  Plan() = default;  // nothing is set, which costs nothing
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;
};

struct Kernel {
  using Run = void (*)(const Plan&, const Buffers&, int64_t begin, int64_t end);

  const char* name;    // "forward_nchw_f32_rows_avx512"
  const char* method;  // "rows"
  Operation operation;
  DType dtype;
  Layout layout;
  Isa isa;
  int lanes;                              // values of the accumulator's type in a vector; 1: no vectors
  const char* (*supports)(const Shape&);  // nullptr, or why this kernel cannot compute the shape
  void (*make_plan)(const Shape&, Plan&);
  Run run[Plan::kMaxStages];  // the stages, up to the first that is null
};

struct KernelList {
  const Kernel* begin_ = nullptr;
  const Kernel* end_ = nullptr;
  const Kernel* begin() const { return begin_; }
  const Kernel* end() const { return end_; }
};

}  // namespace dwconv
