#include "buffers.h"

#include <cstring>

namespace dwconv::test {
namespace {

// Around operands a NaN in every dtype, around what is written bytes that no kernel computes.
constexpr uint8_t kNaN = 0xff, kCanary = 0xa5;

}  // namespace

const char* name(Placement placement) {
  return placement == Placement::front ? "front" : placement == Placement::back ? "back" : "inside";
}

StoredOperands::StoredOperands(const Form& form, const Shape& s, const Operands& operands)
    : epsilon_(operands.epsilon) {
  for (const Input& input : inputs(form.operation, form.given)) {
    const DType dtype = stored_as(input.in_accumulator, form.dtype);
    const size_t bytes = format(dtype).bytes;
    const std::vector<double> values = in_layout(operands, input, form.layout, form.dtype, s);
    auto buffer = std::make_unique<Guarded>(values.size() * bytes, bytes, form.placement, kNaN);
    for (size_t i = 0; i < values.size(); ++i) store(values[i], dtype, buffer->data() + i * bytes);
    buffer->seal();
    memory_[input.name] = buffer.get();
    owned_.push_back(std::move(buffer));
  }
}

Writable::Writable(const Form& form, const Shape& shape, const Call& call, const StoredOperands& operands)
    : form_(form), shape_(shape), written_(outputs(form.operation, form.given)), memory_(operands.memory()) {
  for (const Output& output : written_) {
    const size_t bytes = format(stored_as(output.in_accumulator, form.dtype)).bytes;
    const size_t numbers = size_t(size(output.answer, shape));
    owned_[output.name] = std::make_unique<Guarded>(numbers * bytes, bytes, form.placement, kCanary);
  }
  if (const auto workspace = size_t(call.workspace_bytes())) {
    // The front of a page is aligned to 64 bytes whatever the size; so is its end if the size is a multiple.
    const bool back = form.placement == Placement::back && workspace % 64 == 0;
    const Placement side = back ? Placement::back : Placement::front;
    owned_["workspace"] = std::make_unique<Guarded>(workspace, 1, side, kCanary);
  }
  if (form.in_place) {
    const Guarded& input = *memory_.at("input");
    std::memcpy(owned_.at("result")->data(), input.data(), input.size());
    memory_.erase("input");
  }
  for (const auto& [name, buffer] : owned_) memory_[name] = buffer.get();
  buffers_ = to_buffers(memory_);
  if (form.in_place) buffers_.input = buffers_.result;
  buffers_.activation = form.activation;
  buffers_.epsilon = operands.epsilon();
}

std::vector<double> Writable::values(const Output& output) const {
  const uint8_t* p = memory_.at(output.name)->data();
  const DType dtype = stored_as(output.in_accumulator, form_.dtype);
  std::vector<double> values(size_t(size(output.answer, shape_)));
  for (size_t i = 0; i < values.size(); ++i) values[i] = load(p + i * format(dtype).bytes, dtype);
  return from_layout(values, output.answer, form_.layout, shape_);
}

std::optional<std::string> Writable::damage() const {
  for (const auto& [name, buffer] : owned_) {
    if (const auto byte = buffer->damage()) return "wrote to byte " + std::to_string(*byte) + " of its " + name;
  }
  return std::nullopt;
}

}  // namespace dwconv::test
