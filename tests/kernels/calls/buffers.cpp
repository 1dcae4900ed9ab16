#include "buffers.h"

#include <cstring>

namespace dwconv::test {
namespace {

// Around operands a NaN in every dtype, around what is written bytes that no kernel computes.
constexpr uint8_t kNaN = 0xff, kCanary = 0xa5;

// Bytes behind the end of `reach` that kernels may read; there stand other numbers than a row has.
constexpr size_t kBehindReach = 64;

std::unique_ptr<Guarded> integers(const Input& input, const std::vector<double>& values, Placement placement) {
  const size_t behind = input.values == &Operands::reach ? kBehindReach / 4 : 0;
  auto buffer = std::make_unique<Guarded>((values.size() + behind) * 4, 4, placement, kNaN);
  for (size_t i = 0; i < values.size() + behind; ++i) {
    const int32_t value = i < values.size() ? int32_t(values[i]) : i % 2 ? -1 : INT32_MAX;
    std::memcpy(buffer->data() + i * 4, &value, 4);
  }
  return buffer;
}

}  // namespace

const char* name(Placement placement) {
  return placement == Placement::front ? "front" : placement == Placement::back ? "back" : "inside";
}

StoredOperands::StoredOperands(const Form& form, const Shape& s, const Operands& operands)
    : cache_(operands.cache), epsilon_(operands.epsilon) {
  for (const Input& input : inputs(form.operation, form.given)) {
    const DType dtype = stored_as(input.in_accumulator, form.dtype);
    const size_t bytes = format(dtype).bytes;
    std::unique_ptr<Guarded> buffer;
    if (input.is_integer) {
      buffer = integers(input, operands.*input.values, form.placement);
    } else {
      const auto places = places_of(input.name, form, s);
      const std::vector<double> values =
          places ? spread(operands.*input.values, *places) : in_layout(operands, input, form.layout, form.dtype, s);
      buffer = std::make_unique<Guarded>(values.size() * bytes, bytes, form.placement, kNaN);
      for (size_t i = 0; i < values.size(); ++i) store(values[i], dtype, buffer->data() + i * bytes);
    }
    buffer->seal();
    memory_[input.name] = buffer.get();
    owned_.push_back(std::move(buffer));
  }
}

Writable::Writable(const Form& form, const Shape& shape, const Call& call, const StoredOperands& operands)
    : form_(form), shape_(shape), written_(outputs(form.operation, form.given)), memory_(operands.memory()) {
  for (const Output& output : written_) {
    const size_t bytes = format(stored_as(output.in_accumulator, form.dtype)).bytes;
    const auto places = places_of(output.name, form, shape);
    const auto numbers = size_t(places ? places->extent() : size(output.answer, shape));
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
  if (kind_of(form.operation) == Kind::sequence) {
    if (owned_.count("cache")) fill_cache(operands.cache());
    sequence_ = to_sequence(form, shape, [&](const char* name) -> void* {
      const auto found = memory_.find(name);
      return found == memory_.end() ? nullptr : found->second->data();
    });
    buffers_.sequence = &sequence_;
  }
  if (form.in_place) buffers_.input = buffers_.result;
  buffers_.activation = form.activation;
  buffers_.epsilon = operands.epsilon();
}

std::vector<double> Writable::values(const Output& output) const {
  const uint8_t* p = memory_.at(output.name)->data();
  const DType dtype = stored_as(output.in_accumulator, form_.dtype);
  std::vector<double> values(size_t(size(output.answer, shape_)));
  if (const auto places = places_of(output.name, form_, shape_)) {
    const size_t bytes = format(dtype).bytes;
    places->for_each([&](size_t to, size_t from) { values[to] = load(p + from * bytes, dtype); });
    return values;
  }
  for (size_t i = 0; i < values.size(); ++i) values[i] = load(p + i * format(dtype).bytes, dtype);
  return from_layout(values, output.answer, form_.layout, shape_);
}

std::optional<std::string> Writable::damage() const {
  for (const auto& [name, buffer] : owned_) {
    if (const auto byte = buffer->damage()) return "wrote to byte " + std::to_string(*byte) + " of its " + name;
  }
  if (const auto byte = damage_between_numbers()) {
    return "wrote to byte " + std::to_string(*byte) + " of its cache, between numbers";
  }
  return std::nullopt;
}

void Writable::fill_cache(const std::vector<double>& values) {
  const Guarded& cache = *owned_.at("cache");
  const size_t bytes = format(form_.dtype).bytes;
  std::memset(cache.data(), kCanary, cache.size());
  places_of("cache", form_, shape_)->for_each([&](size_t from, size_t to) {
    store(values[from], form_.dtype, cache.data() + to * bytes);
  });
}

std::optional<size_t> Writable::damage_between_numbers() const {
  const auto found = owned_.find("cache");
  if (found == owned_.end()) return std::nullopt;
  const size_t bytes = format(form_.dtype).bytes;
  std::vector<bool> is_number(found->second->size() / bytes);
  places_of("cache", form_, shape_)->for_each([&](size_t, size_t place) { is_number[place] = true; });
  for (size_t i = 0; i < found->second->size(); ++i) {
    if (!is_number[i / bytes] && found->second->data()[i] != kCanary) return i;
  }
  return std::nullopt;
}

}  // namespace dwconv::test
