#include "sweep.h"

#include <algorithm>

#include "../registry.h"

namespace dwconv {
namespace {

int64_t aligned(int64_t bytes) { return (bytes + 63) / 64 * 64; }

bool is_channels_last(const Strides& strides, int64_t images, const Image& image) {
  return (strides.channel == 1 || image.channels == 1) && (strides.pixel == image.channels || image.width == 1) &&
         (strides.row == image.row() || image.height == 1) && (strides.image == image.size() || images == 1);
}

}  // namespace

Sweep::Sweep(DType dtype, int64_t images, const Image& input, const Strides& strides, const std::vector<Step>& steps,
             double epsilon, const Options& options)
    : dtype_(dtype), images_(images), epsilon_(epsilon), options_(options), strides_(strides), nodes_{input} {
  if (!is_channels_last(strides, images, input)) {
    const bool copied_anyway = !options.scales && !steps.empty() && steps[0].kind == StepKind::dense && steps[0].pads();
    if (!copied_anyway) add_copy(strides, Step{});
  }
  if (options.scales) steps_.push_back(same(Operation::channel_scale)), nodes_.push_back(nodes_.back());
  for (const Step& step : steps) add(step);
  if (options.sums) summing_.push_back(same(Operation::channel_sum));
  cut_into_bands();
  make_plans();
}

// The weights of the first dense step from `step` on.
Coming Sweep::weights_from(size_t step, const void* const* constants, const Coming& otherwise) const {
  for (; step < steps_.size(); ++step) {
    const RowStep& row_step = steps_[step];
    if (row_step.copies || row_step.operation != Operation::dense) continue;
    return {constants[row_step.constant], dense_weight_bytes(dtype_, row_step.shape)};
  }
  return otherwise;
}

void Sweep::add(const Step& step) {
  if (step.kind == StepKind::layer_norm) {
    steps_.push_back(same(Operation::layer_norm)), nodes_.push_back(nodes_.back());
    return;
  }
  const bool dense = step.kind == StepKind::dense;
  Step inner = step;
  if (dense && step.pads()) {
    const Image image = nodes_.back();
    add_copy(steps_.empty() ? strides_ : Strides{0, 1, image.row(), image.channels}, step);
    inner.pad_top = inner.pad_left = inner.pad_bottom = inner.pad_right = 0;
  }
  const Image from = nodes_.back(), to = after(inner, from);
  RowStep added = {};
  added.operation = dense ? Operation::dense : Operation::forward;
  added.shape = {1,
                 from.channels,
                 dense ? step.channels : step.channels / std::max<int64_t>(1, from.channels),
                 from.height,
                 from.width,
                 step.kernel_h,
                 step.kernel_w,
                 to.height,
                 to.width,
                 step.stride_h,
                 step.stride_w,
                 step.dilation_h,
                 step.dilation_w,
                 inner.pad_top,
                 inner.pad_left};
  added.activation = step.activation;
  added.constant = constants_;
  constants_ += step.constants();
  work_ += added.shape.work();
  steps_.push_back(std::move(added));
  nodes_.push_back(to);
}

void Sweep::add_copy(const Strides& from, const Step& borders) {
  const Image image = nodes_.back();
  RowStep added = {};
  added.copies = true;
  added.copy = {image.channels, image.height, image.width, borders.pad_top, borders.pad_left, borders.pad_right, from};
  steps_.push_back(std::move(added));
  nodes_.push_back({image.channels, borders.pad_top + image.height + borders.pad_bottom,
                    borders.pad_left + image.width + borders.pad_right});
}

// An operation whose result has the sizes of its operand.
Sweep::RowStep Sweep::same(Operation operation) const {
  const Image& image = nodes_.back();
  RowStep step = {};
  step.operation = operation;
  step.shape = {1, image.channels, 1, image.height, image.width, 1, 1, image.height, image.width, 1, 1, 1, 1, 0, 0};
  step.constant = -1;
  return step;
}

// As few bands as let all rows that a band touches stay in the cache, in a number that threads share well. Where weights
// are larger than that, every band would bring them from beyond: rows may then be as large.
void Sweep::cut_into_bands() {
  int64_t weights = 0;
  for (const RowStep& step : steps_) {
    if (!step.copies && step.operation == Operation::dense) weights += dense_weight_bytes(dtype_, step.shape);
  }
  const int64_t room = std::max<int64_t>(640 * 1024, weights);
  const int64_t height = std::max<int64_t>(1, result().height);
  for (bands_ = 1; bands_ < height; ++bands_) {
    const Spans need = needed(bands_ / 2);
    int64_t bytes = 0;
    for (size_t node = 0; node < nodes_.size(); ++node) bytes += need[node].size() * row_bytes(node);
    if (bytes <= room) break;
  }
  const int64_t step = bands_ == 1 ? 1 : bands_ <= 4 ? 2 : 4;
  bands_ = std::min((bands_ + step - 1) / step * step, height);
}

// The rows of a step's operand that rows of its result need.
Sweep::Span Sweep::rows_for(size_t index, const Span& results) const {
  const RowStep& step = steps_[index];
  const int64_t height = nodes_[index].height;
  if (step.copies) {
    const int64_t begin = std::clamp<int64_t>(results.begin - step.copy.top, 0, height);
    return {begin, std::clamp<int64_t>(results.end - step.copy.top, begin, height)};
  }
  const Shape& s = step.shape;
  const int64_t begin = std::max<int64_t>(0, results.begin * s.stride_h - s.pad_top);
  const int64_t end = (results.end - 1) * s.stride_h - s.pad_top + (s.KH - 1) * s.dilation_h + 1;
  return {begin, std::min(height, end)};
}

// The rows of every node that a band needs.
Sweep::Spans Sweep::needed(int64_t band) const {
  const int64_t height = result().height;
  Spans need(nodes_.size());
  need.back() = {height * band / bands_, height * (band + 1) / bands_};
  for (size_t step = steps_.size(); step-- > 0;) need[step] = rows_for(step, need[step + 1]);
  return need;
}

// What a step has to compute of the rows that are needed: those behind the ones that the band before has left.
Sweep::Span Sweep::computed(size_t step, const Spans& need, const Spans* kept) const {
  Span results = need[step + 1];
  if (kept && step + 1 < steps_.size()) results.begin = std::clamp((*kept)[step + 1].end, results.begin, results.end);
  return results;
}

Shape Sweep::shape_for(const RowStep& step, const Span& rows, const Span& results) const {
  Shape shape = step.shape;
  shape.H = rows.size(), shape.OH = results.size();
  shape.pad_top = rows.begin - (results.begin * shape.stride_h - shape.pad_top);
  return shape;
}

// Plans for all heights of rows: of bands that follow one, and of bands that a thread begins with.
void Sweep::make_plans() {
  std::vector<int64_t> rows(nodes_.size(), 0);
  int64_t workspace = 0;
  Spans kept;
  for (int64_t band = 0; band < bands_; ++band) {
    const Spans need = needed(band);
    for (const Spans* before :
         {band > 0 ? static_cast<const Spans*>(&kept) : nullptr, static_cast<const Spans*>(nullptr)}) {
      for (size_t step = 0; step < steps_.size(); ++step) {
        rows[step + 1] = std::max(rows[step + 1], need[step + 1].size());
        const Span results = computed(step, need, before);
        if (steps_[step].copies || results.size() == 0) continue;
        workspace = std::max(workspace, plan(steps_[step], shape_for(steps_[step], rows_for(step, results), results)));
      }
    }
    for (RowStep& sum : summing_) workspace = std::max(workspace, plan(sum, shape_for(sum, need.back(), need.back())));
    kept = need;
  }
  buffers_.assign(nodes_.size(), -1);
  for (size_t node = 1; node < nodes_.size(); ++node) {
    if (node + 1 == nodes_.size() && options_.stores) continue;
    buffers_[node] = slot_bytes_;
    slot_bytes_ += aligned(rows[node] * row_bytes(node));
  }
  workspace_at_ = slot_bytes_;
  slot_bytes_ += aligned(workspace);
}

// Makes a plan if there is none yet. Returns the bytes of workspace that it wants.
int64_t Sweep::plan(RowStep& step, const Shape& shape) {
  for (const auto& planned : step.plans) {
    if (planned->rows == shape.H && planned->results == shape.OH && planned->pad_top == shape.pad_top) return 0;
  }
  auto planned = std::make_unique<Planned>();
  planned->rows = shape.H, planned->results = shape.OH, planned->pad_top = shape.pad_top;
  planned->kernel = &select(step.operation, dtype_, Layout::nhwc, shape);
  planned->kernel->make_plan(shape, planned->plan);
  step.plans.push_back(std::move(planned));
  return step.plans.back()->plan.workspace_bytes;
}

void Sweep::compute(const RowStep& step, const Shape& shape, Buffers buffers, const SweepCall& call, int64_t image,
                    const Workers* workers) const {
  const Planned& planned = **std::find_if(step.plans.begin(), step.plans.end(), [&](const auto& each) {
    return each->rows == shape.H && each->results == shape.OH && each->pad_top == shape.pad_top;
  });
  if (step.constant >= 0) {
    buffers.weight = call.constants[step.constant], buffers.bias = call.constants[step.constant + 1];
  }
  buffers.activation = step.activation;
  buffers.epsilon = epsilon_;
  if (call.scale) buffers.scale = static_cast<const char*>(call.scale) + image * shape.C * sum_bytes(dtype_);
  const Kernel& kernel = *planned.kernel;
  for (int stage = 0; stage < Plan::kMaxStages && kernel.run[stage]; ++stage) {
    const int64_t items = planned.plan.items[stage];
    if (workers && items > 1) {
      workers->share(items, [&](int64_t begin, int64_t end) { kernel.run[stage](planned.plan, buffers, begin, end); });
    } else if (items > 0) {
      kernel.run[stage](planned.plan, buffers, 0, items);
    }
  }
}

void Sweep::run(const SweepCall& call, unsigned char* slot, int64_t begin, int64_t end, const Workers* workers) const {
  const int64_t element = element_bytes(dtype_);
  Spans kept;
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t image = unit / bands_, band = unit % bands_;
    const Spans need = needed(band);
    const Spans* before = unit > begin && band > 0 ? &kept : nullptr;
    const unsigned char* whole = static_cast<const unsigned char*>(call.input) + image * strides_.image * element;
    const unsigned char* from = whole + need[0].begin * row_bytes(0);
    for (size_t step = 0; step < steps_.size(); ++step) {
      const RowStep& row_step = steps_[step];
      const size_t node = step + 1;
      const Span results = computed(step, need, before);
      const bool last = node == steps_.size();
      unsigned char* to;  // the first row that is needed
      if (last && options_.stores) {
        to = static_cast<unsigned char*>(call.result) +
             (image * nodes_[node].height + need[node].begin) * row_bytes(node);
      } else {
        to = slot + buffers_[node];
        const int64_t left = results.begin - need[node].begin;
        if (before && left > 0) {
          std::memmove(to, to + (need[node].begin - (*before)[node].begin) * row_bytes(node),
                       size_t(left * row_bytes(node)));
        }
      }
      unsigned char* first = to + (results.begin - need[node].begin) * row_bytes(node);
      if (results.size() == 0) {
        // all are there
      } else if (row_step.copies) {
        const void* source = step == 0 ? whole : from - need[step].begin * row_bytes(step);
        if (element == 2) row_step.copy.run<uint16_t>(source, first, results.begin, results.end);
        if (element == 4) row_step.copy.run<uint32_t>(source, first, results.begin, results.end);
        if (element == 8) row_step.copy.run<uint64_t>(source, first, results.begin, results.end);
      } else {
        const Span rows = rows_for(step, results);
        Buffers buffers;
        buffers.input = from + (rows.begin - need[step].begin) * row_bytes(step);
        buffers.result = first;
        buffers.workspace = slot + workspace_at_;
        if (last && call.residual) {
          buffers.residual = static_cast<const unsigned char*>(call.residual) +
                             (image * nodes_[node].height + results.begin) * row_bytes(node);
        }
        if (unit + 1 == end) {  // else the sweep begins again, with weights that are near
          const Coming next = weights_from(node, call.constants, call.next);
          buffers.next = next.data, buffers.next_bytes = next.bytes;
        }
        compute(row_step, shape_for(row_step, rows, results), buffers, call, image, workers);
      }
      from = to;
    }
    for (const RowStep& sum : summing_) {
      Buffers buffers;
      buffers.input = from;
      buffers.result = static_cast<unsigned char*>(call.sums) + unit * nodes_.back().channels * sum_bytes(dtype_);
      buffers.workspace = slot + workspace_at_;
      compute(sum, shape_for(sum, need.back(), need.back()), buffers, call, image, workers);
    }
    kept = need;
  }
}

}  // namespace dwconv
