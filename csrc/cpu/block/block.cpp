#include "block.h"

#include <algorithm>

#include "../registry.h"
#include "../simd/float16.h"
#include "remembered.h"

namespace dwconv {
namespace {

// A part of a block below this many multiply-adds runs on the thread of the caller (csrc/binding/ops.cpp).
constexpr double kSerialWork = 262144;

int64_t aligned(int64_t bytes) { return (bytes + 63) / 64 * 64; }

// Calls f with a value of the storage type.
template <class F>
void with_type(DType dtype, F f) {
  switch (dtype) {
    case DType::f32: return f(float());
    case DType::f64: return f(double());
    case DType::bf16: return f(bf16());
    case DType::f16: return f(f16());
  }
}

void round_to(double value, double* p) { *p = value; }
void round_to(double value, float* p) { *p = float(value); }
void round_to(double value, bf16* p) { *p = to_bf16(float(value)); }
void round_to(double value, f16* p) { *p = to_f16(float(value)); }
double value_of(double value) { return value; }
template <class T>
double value_of(T value) {
  return to_float(value);
}

// means (images, channels) of sums (images, bands, channels), added in the order of the bands.
template <class T>
void average(const typename accumulator<T>::type* sums, int64_t images, int64_t bands, int64_t channels, int64_t pixels,
             T* means) {
  for (int64_t n = 0; n < images; ++n, sums += bands * channels, means += channels) {
    for (int64_t c = 0; c < channels; ++c) {
      double sum = 0;
      for (int64_t band = 0; band < bands; ++band) sum += sums[band * channels + c];
      round_to(sum / double(pixels), means + c);
    }
  }
}

Shape layer_shape(int64_t rows, int64_t in, int64_t out) {
  return {1, in, out, rows, 1, 1, 1, rows, 1, 1, 1, 1, 1, 0, 0};
}

// A dense layer on `rows` vectors of channels.
void layer(DType dtype, int64_t rows, int64_t in, int64_t out, Buffers buffers, const Workers& workers) {
  const Shape shape = layer_shape(rows, in, out);
  const Kernel& kernel = select(Operation::dense, dtype, Layout::nhwc, shape);
  Plan plan;
  kernel.make_plan(shape, plan);
  const auto run = [&](int64_t begin, int64_t end) { kernel.run[0](plan, buffers, begin, end); };
  if (shape.work() < kSerialWork) {
    run(0, plan.items[0]);
  } else {
    workers.share(plan.items[0], run);
  }
}

}  // namespace

Block::Block(DType dtype, int64_t images, const Image& input, const Strides& strides, const std::vector<Step>& steps,
             double epsilon)
    : dtype_(dtype), images_(images), steps_(steps), result_(input) {
  const int64_t element = element_bytes(dtype), sum = sum_bytes(dtype);
  Image from = input;
  Strides lies = {images == 1 ? input.size() : strides.image, input.channels == 1 ? 1 : strides.channel,
                  input.height == 1 ? input.row() : strides.row, input.width == 1 ? input.channels : strides.pixel};
  bool scales = false;
  std::vector<Step> swept;
  int64_t constants = 0, next_constants = 0;
  const auto finish = [&](int64_t behind) {
    const bool means = behind >= 0 && steps[size_t(behind)].kind == StepKind::mean;
    const bool forwards = behind >= 0 && !means && swept.empty() && !scales;
    const bool dense = lies.channel == 1 && lies.pixel == from.channels && lies.row == from.row();
    const bool merges = behind < 0 && !scales && dense && lies.image == from.size() &&
                        std::all_of(swept.begin(), swept.end(), [](const Step& step) { return step.within_rows(); });
    const Image seen = merges ? Image{from.channels, images * from.height, from.width} : from;
    Part part = {
        Sweep(dtype, merges ? 1 : images, seen, lies, swept, epsilon, {scales, behind >= 0, !means && !forwards})};
    part.constants = constants, part.behind = behind, part.forwards = forwards;
    if (behind >= 0) part.excites = next_constants - steps[size_t(behind)].constants();
    const Image to = part.sweep.result();
    slot_bytes_ = std::max(slot_bytes_, part.sweep.bytes_of_slot());
    if (behind >= 0) {
      const bool last = behind + 1 == int64_t(steps.size());
      part.sums = reserve(part.sweep.units() * to.channels * sum);
      if (!means || !last) part.means = reserve(images * to.channels * element);
      if (means) {
        from = {to.channels, 1, 1};
      } else {
        part.hidden = reserve(images * steps[size_t(behind)].channels * element);
        part.gates = reserve(images * to.channels * element);
        part.scale = element == sum ? part.gates : reserve(images * to.channels * sum);
        if (!forwards) part.result = reserve(images * to.size() * element), from = to;
      }
      if (!forwards) lies = {from.size(), 1, from.row(), from.channels};
      scales = !means;
    }
    parts_.push_back(std::move(part));
    swept.clear();
    constants = next_constants;
  };
  for (size_t i = 0; i < steps.size(); ++i) {
    result_ = after(steps[i], result_);
    next_constants += steps[i].constants();
    if (steps[i].kind == StepKind::squeeze_excite || steps[i].kind == StepKind::mean) {
      finish(int64_t(i));
    } else {
      swept.push_back(steps[i]);
    }
  }
  if (!swept.empty() || scales) finish(-1);
}

int64_t Block::reserve(int64_t bytes) {
  const int64_t at = shared_bytes_;
  shared_bytes_ += aligned(bytes);
  return at;
}

int64_t Block::workspace_bytes(int64_t workers) const { return shared_bytes_ + workers * slot_bytes_; }

void Block::sweep(const Part& part, const SweepCall& call, unsigned char* slots, const Workers& workers) const {
  const Sweep& sweep = part.sweep;
  const int64_t units = sweep.units(), count = workers.count();
  if (count == 1 || sweep.work() < kSerialWork) return sweep.run(call, slots, 0, units, nullptr);
  if (units < count) return sweep.run(call, slots, 0, units, &workers);
  workers.share(count, [&](int64_t begin, int64_t end) {
    for (int64_t slot = begin; slot < end; ++slot) {
      sweep.run(call, slots + slot * slot_bytes_, units * slot / count, units * (slot + 1) / count, nullptr);
    }
  });
}

// The scale that squeeze-and-excite has for every channel of an image.
void Block::excite(const Part& part, const void* const* constants, unsigned char* memory,
                   const Workers& workers) const {
  const Step& step = steps_[size_t(part.behind)];
  const int64_t channels = part.sweep.result().channels;
  Buffers buffers;
  buffers.input = memory + part.means, buffers.result = memory + part.hidden;
  buffers.weight = constants[0], buffers.bias = constants[1], buffers.activation = step.activation;
  layer(dtype_, images_, channels, step.channels, buffers, workers);
  buffers.input = memory + part.hidden, buffers.result = memory + part.gates;
  buffers.weight = constants[2], buffers.bias = constants[3], buffers.activation = step.gate;
  layer(dtype_, images_, step.channels, channels, buffers, workers);
  if (part.scale == part.gates) return;
  with_type(dtype_, [&](auto type) {
    const auto* gates = reinterpret_cast<const decltype(type)*>(memory + part.gates);
    float* scale = reinterpret_cast<float*>(memory + part.scale);
    for (int64_t i = 0; i < images_ * channels; ++i) scale[i] = float(value_of(gates[i]));
  });
}

// The weights that are read first from a part on.
Coming Block::first(size_t part, const void* const* constants, const Coming& otherwise) const {
  if (part == parts_.size()) return otherwise;
  return parts_[part].sweep.first(constants + parts_[part].constants, behind(part, constants, otherwise));
}

// The weights that are read after the sweep of a part.
Coming Block::behind(size_t part, const void* const* constants, const Coming& otherwise) const {
  const Part& p = parts_[part];
  if (p.behind >= 0 && steps_[size_t(p.behind)].kind == StepKind::squeeze_excite) {
    const int64_t in = p.sweep.result().channels, hidden = steps_[size_t(p.behind)].channels;
    return {constants[p.excites], dense_weight_bytes(dtype_, layer_shape(1, in, hidden))};
  }
  return first(part + 1, constants, otherwise);
}

void Block::run(const BlockCall& call, const Workers& workers) const {
  unsigned char* memory = call.workspace;
  const void* input = call.input;
  const void* scale = nullptr;
  for (size_t i = 0; i < parts_.size(); ++i) {
    const Part& part = parts_[i];
    const bool last = i + 1 == parts_.size();
    SweepCall sweeping;
    sweeping.input = input;
    sweeping.constants = call.constants + part.constants;
    sweeping.residual = last ? call.residual : nullptr;
    sweeping.scale = scale;
    sweeping.result = part.result >= 0 ? memory + part.result : call.result;
    sweeping.sums = part.sums >= 0 ? memory + part.sums : nullptr;
    sweeping.next = behind(i, call.constants, call.next);
    sweep(part, sweeping, memory + shared_bytes_, workers);
    if (part.behind < 0) return;
    const Image image = part.sweep.result();
    unsigned char* means = part.means >= 0 ? memory + part.means : static_cast<unsigned char*>(call.result);
    with_type(dtype_, [&](auto type) {
      using T = decltype(type);
      average<T>(reinterpret_cast<const typename accumulator<T>::type*>(memory + part.sums), images_,
                 part.sweep.bands(), image.channels, image.height * image.width, reinterpret_cast<T*>(means));
    });
    if (steps_[size_t(part.behind)].kind == StepKind::squeeze_excite) {
      excite(part, call.constants + part.excites, memory, workers);
      scale = memory + part.scale;
      if (!part.forwards) input = sweeping.result;
    } else {
      scale = nullptr;
      input = means;
    }
  }
}

std::shared_ptr<const Block> block_of(DType dtype, int64_t images, const Image& input, const Strides& strides,
                                      const std::vector<Step>& steps, double epsilon) {
  static Remembered<Block, 512> blocks;
  Key key;
  key.add({int64_t(dtype), images, input.channels, input.height, input.width});
  key.add({strides.image, strides.channel, strides.row, strides.pixel});
  key.add(steps, epsilon);
  return blocks.find(std::move(key),
                     [&] { return std::make_shared<const Block>(dtype, images, input, strides, steps, epsilon); });
}

}  // namespace dwconv
