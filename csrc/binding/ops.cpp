// The operators: their schemas, and their kernels for CPU tensors.
#include <torch/csrc/stable/library.h>

#include "../cpu/registry.h"
#include "batch_norm.h"
#include "block.h"
#include "operators.h"
#include "pointwise.h"
#include "sequence.h"

namespace dwconv {
namespace {

// Below this many multiply-adds a call costs less than sharing it with the other threads. Measured with two threads on
// Zen 5: 3x3 and 7x7 layers break even between 2^17 and 2^19, where a call takes 6 to 9 us.
constexpr double kSerialWork = 262144;

// Bytes of workspace that need no allocation.
constexpr int64_t kStackWorkspace = 32768;

void run_stage(const Kernel& kernel, int stage, const Plan& plan, double work, const Buffers& buffers) {
  const int64_t items = plan.items[stage];
  const Kernel::Run run = kernel.run[stage];
  if (items <= 1 || work < kSerialWork) {
    if (items > 0) run(plan, buffers, 0, items);
    return;
  }
  // Every chunk that a thread is given holds at least half of what would have been done serially.
  const int64_t grain = std::max<int64_t>(1, int64_t(double(items) * (kSerialWork / 2) / work));
  torch::stable::parallel_for(0, items, grain, [&](int64_t begin, int64_t end) { run(plan, buffers, begin, end); });
}

struct Cpu {
  static constexpr const char* kPlace = "on the CPU";
  static bool owns(const Tensor& tensor) { return tensor.is_cpu(); }
  static bool runs_backward(Layout, const Tensor&, const Shape&) { return false; }
  static void run(Operation operation, Layout layout, const Tensor& like, const Shape& shape, Buffers buffers) {
    const Kernel& kernel = select(operation, dtype_of(like), layout, shape);
    Plan plan;
    kernel.make_plan(shape, plan);
    const int64_t bytes = plan.workspace_bytes;
    // A small one costs less on the stack than the allocation does.
    alignas(64) unsigned char small[kStackWorkspace];
    std::optional<Tensor> workspace;
    if (bytes <= kStackWorkspace) {
      buffers.workspace = small;
    } else {
      workspace = allocate_workspace(like, bytes);
      buffers.workspace = workspace->mutable_data_ptr();
    }
    const double work = shape.work();
    for (int stage = 0; stage < Plan::kMaxStages && kernel.run[stage]; ++stage) {
      run_stage(kernel, stage, plan, work, buffers);
    }
  }
};

}  // namespace
}  // namespace dwconv

// Sizes and padding are SymInt, so that graphs with dynamic shapes can carry them; stride, dilation and the number of
// arguments are plain integers, which cost a call least. channels_last is the memory format of the result. The out
// overloads are for eager code that owns its buffers: they have no derivative and no fake kernel. backward is what our own
// derivative calls, and has none either; weight_channels_last is the memory format of the weight's gradient.
#define FORWARD_ARGUMENTS                                                                               \
  "Tensor input, Tensor weight, Tensor? bias, SymInt out_h, SymInt out_w, int stride_h, int stride_w, " \
  "SymInt pad_top, SymInt pad_left, int dilation_h, int dilation_w, bool channels_last, int activation=0"
#define GRAD_INPUT_ARGUMENTS                                                                        \
  "Tensor grad_output, Tensor weight, SymInt in_channels, SymInt in_h, SymInt in_w, int stride_h, " \
  "int stride_w, SymInt pad_top, SymInt pad_left, int dilation_h, int dilation_w, bool channels_last"
#define GRAD_WEIGHT_ARGUMENTS                                                                        \
  "Tensor input, Tensor grad_output, SymInt kernel_h, SymInt kernel_w, int stride_h, int stride_w, " \
  "SymInt pad_top, SymInt pad_left, int dilation_h, int dilation_w, bool with_bias, bool channels_last"
#define BACKWARD_ARGUMENTS                                                                                         \
  "Tensor grad_output, Tensor input, Tensor weight, int stride_h, int stride_w, SymInt pad_top, SymInt pad_left, " \
  "int dilation_h, int dilation_w, bool with_bias, bool channels_last, bool weight_channels_last"
#define BATCH_NORM_PARAMETERS "Tensor? weight, Tensor? bias, "
#define SEQUENCE_ARGUMENTS \
  "Tensor x, Tensor weight, Tensor? bias, Tensor? initial_states, Tensor? seq_idx, int dilation, int activation"

STABLE_TORCH_LIBRARY(torch_dwconv, m) {
  m.def("forward(" FORWARD_ARGUMENTS ") -> Tensor");
  m.def("forward.out(" FORWARD_ARGUMENTS ", *, Tensor(a!) out) -> Tensor(a!)");
  m.def("grad_input(" GRAD_INPUT_ARGUMENTS ") -> Tensor");
  m.def("grad_input.out(" GRAD_INPUT_ARGUMENTS ", *, Tensor(a!) out) -> Tensor(a!)");
  m.def("grad_weight(" GRAD_WEIGHT_ARGUMENTS ") -> (Tensor, Tensor)");
  m.def("grad_weight.out(" GRAD_WEIGHT_ARGUMENTS
        ", *, Tensor(a!) out, Tensor(b!) bias_out) -> (Tensor(a!), Tensor(b!))");
  m.def("backward(" BACKWARD_ARGUMENTS ") -> (Tensor, Tensor, Tensor)");
  m.def("block(Tensor input, Tensor[] constants, Tensor? residual, int[] steps, float epsilon=0.) -> Tensor");
  m.def("run_blocks(Tensor[] inputs, Tensor[] constants, Tensor numbers, float[] epsilons) -> Tensor[]");
  m.def("batch_norm(Tensor input, " BATCH_NORM_PARAMETERS
        "float epsilon, int activation, bool channels_last) -> (Tensor, Tensor, Tensor)");
  m.def("batch_norm_eval(Tensor input, " BATCH_NORM_PARAMETERS
        "Tensor mean, Tensor variance, float epsilon, int activation, bool channels_last) -> Tensor");
  m.def("batch_norm_backward(Tensor grad_output, Tensor input, " BATCH_NORM_PARAMETERS
        "Tensor mean, Tensor variance, float epsilon, int activation, bool of_batch, bool wants_input, "
        "bool wants_parameters, bool channels_last) -> (Tensor, Tensor, Tensor)");
  m.def("pointwise(Tensor input, Tensor weight, Tensor? bias, bool channels_last) -> Tensor");
  m.def("pointwise_grad_input(Tensor grad_output, Tensor weight, bool channels_last) -> Tensor");
  m.def(
      "pointwise_grad_weight(Tensor input, Tensor grad_output, bool channels_last, bool weight_channels_last) -> "
      "Tensor");
  m.def("causal_conv1d(" SEQUENCE_ARGUMENTS ") -> Tensor");
  m.def("causal_conv1d_backward(Tensor grad_output, " SEQUENCE_ARGUMENTS ") -> (Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "causal_conv1d_update(Tensor x, Tensor(a!) conv_state, Tensor weight, Tensor? bias, Tensor? cache_seqlens, "
      "Tensor? conv_state_indices, int activation) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(torch_dwconv, CPU, m) {
  dwconv::implement<dwconv::Cpu>(m);
  m.impl("block", TORCH_BOX((&dwconv::block<dwconv::Cpu>)));
  m.impl("run_blocks", TORCH_BOX((&dwconv::run_blocks<dwconv::Cpu>)));
  m.impl("batch_norm", TORCH_BOX((&dwconv::batch_norm<dwconv::Cpu>)));
  m.impl("batch_norm_eval", TORCH_BOX((&dwconv::batch_norm_eval<dwconv::Cpu>)));
  m.impl("batch_norm_backward", TORCH_BOX((&dwconv::batch_norm_backward<dwconv::Cpu>)));
  m.impl("pointwise", TORCH_BOX((&dwconv::pointwise<dwconv::Cpu>)));
  m.impl("pointwise_grad_input", TORCH_BOX((&dwconv::pointwise_grad_input<dwconv::Cpu>)));
  m.impl("pointwise_grad_weight", TORCH_BOX((&dwconv::pointwise_grad_weight<dwconv::Cpu>)));
  m.impl("causal_conv1d", TORCH_BOX((&dwconv::causal_conv1d<dwconv::Cpu>)));
  m.impl("causal_conv1d_backward", TORCH_BOX((&dwconv::causal_conv1d_backward<dwconv::Cpu>)));
  m.impl("causal_conv1d_update", TORCH_BOX((&dwconv::causal_conv1d_update<dwconv::Cpu>)));
}
