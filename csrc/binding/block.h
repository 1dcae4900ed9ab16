// The operator `block` on CPU tensors: checks that memory safety needs, then csrc/cpu/block.
//
// steps has kStepFields integers for each step, in the order of struct Step (csrc/cpu/block/step.h); constants has the
// tensors of all steps, one step's after the other's. The result is channels_last.
#pragma once
#include <vector>

#include "../cpu/block/program.h"
#include "geometry.h"
#include "scratch.h"
#include "tensors.h"

namespace dwconv {
namespace {

constexpr int64_t kStepFields = 14, kMostSteps = 64;

Step step_of(const int64_t* fields) {
  return {StepKind(fields[0]), Activation(fields[1]),
          fields[2],           fields[3],
          fields[4],           fields[5],
          fields[6],           fields[7],
          fields[8],           fields[9],
          fields[10],          fields[11],
          fields[12],          Activation(fields[13])};
}

std::vector<Step> steps_of(const int64_t* numbers, int64_t size) {
  const int64_t count = size / kStepFields;
  STD_TORCH_CHECK(count * kStepFields == size && count > 0 && count <= kMostSteps, "torch_dwconv: steps must have ",
                  kStepFields, " integers for each of 1 to ", kMostSteps, " steps, got ", size);
  std::vector<Step> steps;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t* fields = numbers + i * kStepFields;
    const auto among = [&](int64_t field, int64_t last, const char* what) {
      STD_TORCH_CHECK(fields[field] >= 0 && fields[field] <= last, "torch_dwconv: ", what, " of step ", i,
                      " must be 0 to ", last, ", got ", fields[field]);
    };
    among(0, int64_t(StepKind::mean), "the kind");
    among(1, int64_t(Activation::sigmoid), "the activation");
    among(13, int64_t(Activation::sigmoid), "the gate");
    steps.push_back(step_of(fields));
  }
  return steps;
}

// The geometry of a step on an image, which has to have one.
void check_step(const Step& s, int64_t images, const Image& from) {
  STD_TORCH_CHECK(s.channels > 0, "torch_dwconv: the channels of a step must be positive, got ", s.channels);
  if (!s.convolves()) {
    STD_TORCH_CHECK(s.kind == StepKind::squeeze_excite || s.channels == from.channels,
                    "torch_dwconv: layer_norm and mean keep their ", from.channels, " channels, got ", s.channels);
    return;
  }
  const bool dense = s.kind == StepKind::dense;
  const int64_t most = int64_t(1) << 31;
  for (int64_t size : {s.kernel_h, s.kernel_w, s.stride_h, s.stride_w, s.dilation_h, s.dilation_w}) {
    STD_TORCH_CHECK(size > 0 && size < most, "torch_dwconv: kernel, stride and dilation must be positive, got ", size);
  }
  const auto within = [&](int64_t pad, int64_t kernel, int64_t dilation) {
    STD_TORCH_CHECK(pad >= 0 && pad <= (kernel - 1) * dilation,
                    "torch_dwconv: the padding of a step must be smaller than its kernel, got ", pad);
  };
  within(s.pad_top, s.kernel_h, s.dilation_h), within(s.pad_bottom, s.kernel_h, s.dilation_h);
  within(s.pad_left, s.kernel_w, s.dilation_w), within(s.pad_right, s.kernel_w, s.dilation_w);
  const Image to = after(s, from);
  const int64_t fan_out = dense ? s.channels : multiplier(s.channels, from.channels);
  const Shape shape = {images,     from.channels, fan_out,      from.height, from.width,
                       s.kernel_h, s.kernel_w,    to.height,    to.width,    s.stride_h,
                       s.stride_w, s.dilation_h,  s.dilation_w, s.pad_top,   s.pad_left};
  check_geometry(shape);
}

int64_t panel_size(const Step& s, int64_t channels, DType dtype) {
  const bool joined = s.dilation_w == 1 || s.kernel_w == 1;
  const int64_t length = joined ? s.kernel_w * channels : channels, count = s.kernel_h * (joined ? 1 : s.kernel_w);
  return 16 * count * (dtype == DType::bf16 ? (length + 1) / 2 * 2 : length);
}

// The pointers of a block's constants, of the sizes that its steps ask for.
class Constants {
 public:
  Constants(const std::vector<Tensor>& tensors, const Tensor& input)
      : tensors_(tensors), input_(input), dtype_(dtype_of(input)) {}

  void take(const Step& step, int64_t channels) {
    if (step.kind == StepKind::depthwise) {
      next(input_.scalar_type(), step.channels * step.kernel_h * step.kernel_w, "a depthwise weight");
      next(input_.scalar_type(), step.channels, "a depthwise bias");
    } else if (step.kind == StepKind::dense) {
      dense(step, channels, step.channels);
    } else if (step.kind == StepKind::squeeze_excite) {
      Step layer = {};
      layer.kernel_h = layer.kernel_w = layer.dilation_w = 1;
      dense(layer, channels, step.channels), dense(layer, step.channels, channels);
    }
  }
  const std::vector<const void*>& pointers() const {
    STD_TORCH_CHECK(pointers_.size() == tensors_.size(), "torch_dwconv: the steps take ", pointers_.size(),
                    " constants, got ", tensors_.size());
    return pointers_;
  }

 private:
  void dense(const Step& step, int64_t in, int64_t out) {
    next(input_.scalar_type(), (out + 15) / 16 * panel_size(step, in, dtype_), "a packed weight");
    next(dtype_ == DType::f64 ? ScalarType::Double : ScalarType::Float, out, "a bias");
  }

  void next(ScalarType dtype, int64_t numel, const char* what) {
    STD_TORCH_CHECK(pointers_.size() < tensors_.size(), "torch_dwconv: ", what, " is missing among the ",
                    tensors_.size(), " constants");
    const Tensor& tensor = tensors_[pointers_.size()];
    STD_TORCH_CHECK(tensor.is_cpu() && tensor.scalar_type() == dtype && tensor.numel() == numel &&
                        tensor.is_contiguous() && (tensor.const_data_ptr() || numel == 0),
                    "torch_dwconv: constant ", pointers_.size(), " must be ", what, " of ", numel,
                    " elements, contiguous, on the CPU and of the right dtype, got ", tensor.numel(), " elements");
    pointers_.push_back(tensor.const_data_ptr());
  }

  const std::vector<Tensor>& tensors_;
  const Tensor& input_;
  DType dtype_;
  std::vector<const void*> pointers_;
};

// The number of threads is asked once: the workspace has a slot for each.
class TorchThreads : public Workers {
 public:
  int64_t count() const override { return count_; }
  void share(int64_t items, const Range& range) const override { torch::stable::parallel_for(0, items, 1, range); }

 private:
  int64_t count_ = int64_t(torch::stable::get_num_threads());
};

// A value of the call: what a block makes of an image is checked as far as memory safety needs it.
Value after(const Value& from, const std::vector<Step>& steps, Constants& constants) {
  Image image = from.image;
  for (const Step& step : steps) {
    check_step(step, from.images, image);
    constants.take(step, image.channels);
    image = after(step, image);
  }
  STD_TORCH_CHECK(from.elements() > 0 || from.images * image.size() == 0,
                  "torch_dwconv: a block computes nothing from an input without elements");
  return {from.images, image, {image.size(), 1, image.row(), image.channels}};
}

Sizes sizes_of(const Value& value) {
  return {value.images, value.image.channels, value.image.height, value.image.width};
}

Value value_of(const Tensor& tensor) {
  const auto strides = tensor.strides();
  const Sizes sizes = sizes_of(tensor);
  return {sizes[0], {sizes[1], sizes[2], sizes[3]}, {strides[0], strides[1], strides[2], strides[3]}};
}

template <class Device>
Tensor block(Tensor input, std::vector<Tensor> constants, std::optional<Tensor> residual, std::vector<int64_t> numbers,
             double epsilon) {
  check_operand<Device>(input, "input", input, 4);
  const std::vector<Step> steps = steps_of(numbers.data(), int64_t(numbers.size()));
  const Value from = value_of(input);
  Constants pointers(constants, input);
  const Value to = after(from, steps, pointers);
  const std::vector<const void*>& all = pointers.pointers();
  Tensor rest;
  if (residual) {
    STD_TORCH_CHECK(steps.back().kind == StepKind::dense, "torch_dwconv: a residual needs a dense step at the end");
    check_operand<Device>(*residual, "residual", input, 4);
    check_size(*residual, "residual", sizes_of(to));
    rest = dense(*residual, Layout::nhwc);
  }
  Tensor output = empty_like_dtype(input, sizes_of(to), Layout::nhwc);
  if (output.numel() == 0) return output;
  const auto made = block_of(dtype_of(input), from.images, from.image, from.strides, steps, epsilon);
  const TorchThreads threads;
  const Scratch scratch(input, made->workspace_bytes(threads.count()));
  BlockCall call;
  call.input = input.const_data_ptr();
  call.constants = all.data();
  call.residual = residual ? rest.const_data_ptr() : nullptr;
  call.result = output.mutable_data_ptr();
  call.workspace = scratch.memory();
  made->run(call, threads);
  return output;
}

// The numbers of `run_blocks`: [nodes, outputs, the outputs..., for each node: source, residual, steps, the steps...].
class ProgramNumbers {
 public:
  explicit ProgramNumbers(const Tensor& numbers)
      : next_(static_cast<const int64_t*>(numbers.const_data_ptr())), left_(numbers.numel()) {
    STD_TORCH_CHECK(numbers.is_cpu() && numbers.scalar_type() == ScalarType::Long && numbers.is_contiguous(),
                    "torch_dwconv: the numbers of a program must be a contiguous int64 tensor on the CPU");
  }
  int64_t next(int64_t least, int64_t most) {
    const int64_t number = *take(1);
    STD_TORCH_CHECK(number >= least && number <= most, "torch_dwconv: a number of a program must be ", least, " to ",
                    most, ", got ", number);
    return number;
  }
  const int64_t* take(int64_t count) {
    STD_TORCH_CHECK(count <= left_, "torch_dwconv: the numbers of a program end too early");
    left_ -= count, next_ += count;
    return next_ - count;
  }
  int64_t left() const { return left_; }

 private:
  const int64_t* next_;
  int64_t left_;
};

// Blocks in one call, for eager code: no derivative, no fake kernel. What a program is made for is found again by its
// numbers and the sizes of its inputs.
template <class Device>
std::vector<Tensor> run_blocks(std::vector<Tensor> inputs, std::vector<Tensor> constants, Tensor numbers,
                               std::vector<double> epsilons) {
  STD_TORCH_CHECK(!inputs.empty(), "torch_dwconv: a program needs an input");
  const int64_t given = int64_t(inputs.size());
  std::vector<Value> values;
  for (const Tensor& input : inputs) {
    check_operand<Device>(input, "input", inputs[0], 4);
    values.push_back(value_of(input));
  }
  constexpr int64_t kMost = 4096;
  ProgramNumbers reader(numbers);
  const int64_t count = reader.next(1, kMost), output_count = reader.next(1, kMost);
  std::vector<int64_t> outputs;
  for (int64_t i = 0; i < output_count; ++i) outputs.push_back(reader.next(given, given + count - 1));
  STD_TORCH_CHECK(int64_t(epsilons.size()) == count, "torch_dwconv: a program of ", count,
                  " blocks needs as many epsilons, got ", epsilons.size());
  Constants pointers(constants, inputs[0]);
  std::vector<Node> nodes;
  for (int64_t i = 0; i < count; ++i) {
    Node node;
    node.source = reader.next(0, given + i - 1), node.residual = reader.next(-1, given + i - 1);
    const int64_t fields = reader.next(1, kMostSteps) * kStepFields;
    node.steps = steps_of(reader.take(fields), fields);
    node.epsilon = epsilons[size_t(i)];
    values.push_back(after(values[size_t(node.source)], node.steps, pointers));
    if (node.residual >= 0) {
      STD_TORCH_CHECK(node.steps.back().kind == StepKind::dense && node.residual >= 0 &&
                          sizes_of(values[size_t(node.residual)]) == sizes_of(values.back()),
                      "torch_dwconv: a residual needs a dense step at the end, and its sizes");
    }
    nodes.push_back(std::move(node));
  }
  STD_TORCH_CHECK(reader.left() == 0, "torch_dwconv: a program has ", reader.left(), " numbers too many");
  // A residual is read as channels last.
  for (const Node& node : nodes) {
    if (node.residual >= 0 && node.residual < given) {
      Tensor& residual = inputs[size_t(node.residual)];
      residual = dense(residual, Layout::nhwc), values[size_t(node.residual)] = value_of(residual);
    }
  }
  std::vector<Tensor> results;
  ProgramCall call;
  bool empty = false;
  for (const Value& value : values) empty = empty || value.elements() == 0;
  for (int64_t output : outputs) {
    results.push_back(empty_like_dtype(inputs[0], sizes_of(values[size_t(output)]), Layout::nhwc));
    call.outputs.push_back(results.back().mutable_data_ptr());
  }
  if (empty) {
    for (const Tensor& result : results) {
      STD_TORCH_CHECK(result.numel() == 0, "torch_dwconv: a program computes nothing from inputs without elements");
    }
    return results;
  }
  values.resize(size_t(given));
  const auto program = program_of(dtype_of(inputs[0]), values, nodes, outputs);
  const TorchThreads threads;
  const Scratch scratch(inputs[0], program->workspace_bytes(threads.count()));
  for (const Tensor& input : inputs) call.inputs.push_back(input.const_data_ptr());
  call.constants = pointers.pointers().data();
  call.workspace = scratch.memory();
  program->run(call, threads);
  return results;
}

}  // namespace
}  // namespace dwconv
