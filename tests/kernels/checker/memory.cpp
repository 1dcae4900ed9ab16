#include "memory.h"

namespace dwconv::test {
namespace {

// Around operands a NaN in every dtype, around what is written bytes that no kernel computes.
constexpr uint8_t kNaN = 0xff, kCanary = 0xa5;

}  // namespace

const char* name(Placement placement) {
  return placement == Placement::front ? "front" : placement == Placement::back ? "back" : "inside";
}

std::vector<double> in_layout(const std::vector<double>& images, Layout layout, const Shape& s, int64_t channels,
                              int64_t height, int64_t width) {
  if (layout == Layout::nchw) return images;
  std::vector<double> stored(images.size());
  const int64_t pixels = height * width;
  size_t from = 0;
  for (int64_t n = 0; n < s.N; ++n) {
    for (int64_t c = 0; c < channels; ++c) {
      for (int64_t pixel = 0; pixel < pixels; ++pixel)
        stored[size_t((n * pixels + pixel) * channels + c)] = images[from++];
    }
  }
  return stored;
}

std::vector<double> result_in_layout(const std::vector<double>& result, Operation operation, Layout layout,
                                     const Shape& s) {
  if (operation == Operation::forward) return in_layout(result, layout, s, s.out_channels(), s.OH, s.OW);
  if (operation == Operation::grad_input) return in_layout(result, layout, s, s.C, s.H, s.W);
  return result;
}

StoredOperands::StoredOperands(const Form& form, const Shape& s, const Operands& operands) {
  if (form.operation != Operation::grad_input)
    add("input", in_layout(operands.input, form.layout, s, s.C, s.H, s.W), form);
  if (form.operation != Operation::grad_weight) add("weight", operands.weight, form);
  if (form.operation == Operation::forward && form.with_bias) add("bias", operands.bias, form);
  if (form.operation != Operation::forward) {
    add("grad_output", in_layout(operands.grad_output, form.layout, s, s.out_channels(), s.OH, s.OW), form);
  }
}

void StoredOperands::add(const char* name, const std::vector<double>& values, const Form& form) {
  const size_t bytes = format(form.dtype).bytes;
  auto buffer = std::make_unique<Guarded>(values.size() * bytes, bytes, form.placement, kNaN);
  for (size_t i = 0; i < values.size(); ++i) store(values[i], form.dtype, buffer->data() + i * bytes);
  buffer->seal();
  memory_[name] = buffer.get();
  owned_.push_back(std::move(buffer));
}

Writable::Writable(const Form& form, const Shape& shape, const Kernel& kernel, const StoredOperands& operands)
    : memory_(operands.memory()) {
  const size_t bytes = format(form.dtype).bytes;
  const auto results = size_t(result_size(form.operation, shape));
  memory_["result"] = (result_ = std::make_unique<Guarded>(results * bytes, bytes, form.placement, kCanary)).get();
  if (form.operation == Operation::grad_weight && form.with_bias) {
    const auto channels = size_t(shape.out_channels());
    grad_bias_ = std::make_unique<Guarded>(channels * bytes, bytes, form.placement, kCanary);
    memory_["grad_bias"] = grad_bias_.get();
  }
  const auto workspace = size_t(workspace_bytes(kernel, shape));
  if (workspace) {
    // The front of a page is aligned to 64 bytes whatever the size; so is its end if the size is a multiple.
    const bool back = form.placement == Placement::back && workspace % 64 == 0;
    workspace_ = std::make_unique<Guarded>(workspace, 1, back ? Placement::back : Placement::front, kCanary);
    memory_["workspace"] = workspace_.get();
  }
  buffers_ = to_buffers(memory_);
  buffers_.activation = form.activation;
}

std::optional<std::string> Writable::damage() const {
  for (const auto& [name, buffer] : memory_) {
    if (buffer != result_.get() && buffer != grad_bias_.get() && buffer != workspace_.get()) continue;
    if (const auto byte = buffer->damage()) return "wrote to byte " + std::to_string(*byte) + " of its " + name;
  }
  return std::nullopt;
}

}  // namespace dwconv::test
