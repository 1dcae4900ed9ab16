#include "sequence.h"

#include <limits>

namespace dwconv::test {
namespace {

// `inner` and `outer` numbers lie between those of the innermost dimension, and between the others.
Places placed(int64_t images, int64_t channels, int64_t positions, bool channels_last, int64_t inner, int64_t outer) {
  Places p = {images, channels, positions, 0, 0, 0};
  int64_t& near = channels_last ? p.channel_step : p.position_step;
  int64_t& far = channels_last ? p.position_step : p.channel_step;
  near = 1 + inner;
  far = near * (channels_last ? channels : positions) + outer;
  p.image_step = far * (channels_last ? positions : channels) + outer;
  return p;
}

}  // namespace

int64_t Places::extent() const {
  if (images == 0 || channels == 0 || positions == 0) return 0;
  return (images - 1) * image_step + (channels - 1) * channel_step + (positions - 1) * position_step + 1;
}

std::optional<Places> places_of(const std::string& name, const Form& form, const Shape& s) {
  if (kind_of(form.operation) != Kind::sequence) return std::nullopt;
  const Spacing& spacing = form.spacing;
  const bool is_step = form.operation == Operation::sequence_step;
  const int64_t inner = is_step && !spacing.dense ? spacing.gap : 0;
  if (name == "input") {
    const bool channels_last = is_step ? spacing.input_channels_last : form.layout == Layout::nhwc;
    return placed(s.N, s.C, s.W, channels_last, inner, spacing.gap);
  }
  // Other gaps than those of the input.
  const int64_t outer = spacing.gap ? spacing.gap + 1 : 0;
  if (name == "grad_output") return placed(s.N, s.C, s.W, form.layout == Layout::nhwc, 0, outer);
  if (name == "cache") {
    return placed(cache_rows(s), s.C, cache_length(s), spacing.cache_channels_last, inner, outer);
  }
  return std::nullopt;
}

std::vector<double> spread(const std::vector<double>& values, const Places& places) {
  std::vector<double> stored(size_t(places.extent()), std::numeric_limits<double>::quiet_NaN());
  places.for_each([&](size_t from, size_t to) { stored[to] = values[from]; });
  return stored;
}

void draw_sequence(Form& form, const Shape& s, Random& random) {
  const bool is_step = form.operation == Operation::sequence_step;
  const auto toss = [&] { return random.chance(2); };
  Given& given = form.given;
  given.wide_weight = toss(), given.wide_bias = toss();
  given.states = toss() && !is_step, given.reach = toss() && !is_step;
  given.grad_states = toss() && form.operation == Operation::sequence_backward;
  given.rows = toss() && is_step, given.begins = toss() && is_step && cache_length(s) > 0;
  form.spacing = {toss() ? 0 : random.between(1, 3), toss(), toss(), toss()};
}

std::string sequence_text(const Form& form) {
  if (kind_of(form.operation) != Kind::sequence) return "";
  const Given& given = form.given;
  std::string text = std::string(given.wide_weight ? ", wide weight" : "") + (given.wide_bias ? ", wide bias" : "") +
                     (given.states ? ", states" : "") + (given.grad_states ? ", grad_states" : "") +
                     (given.reach ? ", reach" : "") + (given.rows ? ", rows" : "") + (given.begins ? ", ring" : "");
  if (form.spacing.gap) text += ", gaps of " + std::to_string(form.spacing.gap);
  return text;
}

Sequence to_sequence(const Form& form, const Shape& s, const std::function<void*(const char*)>& pointer) {
  const auto steps = [&](const char* name) -> Sequence::Steps {
    const Places p = *places_of(name, form, s);
    return {p.image_step, form.layout == Layout::nhwc ? p.position_step : p.channel_step};
  };
  const auto integers = [&](const char* name) { return static_cast<const int32_t*>(pointer(name)); };
  Sequence sequence = {};
  sequence.input = steps("input");
  sequence.grad_output = steps("grad_output");
  sequence.wide_weight = form.given.wide_weight, sequence.wide_bias = form.given.wide_bias;
  if (form.operation != Operation::sequence_step) {
    sequence.states = pointer("states"), sequence.grad_states = pointer("grad_states");
    sequence.reach = integers("reach");
    return sequence;
  }
  const Places p = *places_of("cache", form, s);
  sequence.cache = {pointer("cache"), p.positions,      p.image_step,      p.channel_step,
                    p.position_step,  integers("rows"), integers("begins")};
  sequence.input_position = places_of("input", form, s)->position_step;
  return sequence;
}

}  // namespace dwconv::test
