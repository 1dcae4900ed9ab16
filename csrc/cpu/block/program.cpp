#include "program.h"

#include <algorithm>

#include "remembered.h"

namespace dwconv {
namespace {

// What a chunk reads and writes in a block: half of an L2 of 2 MB, which holds weights and rows between steps too.
constexpr int64_t kChunkBytes = 1048576;

int64_t aligned(int64_t bytes) { return (bytes + 63) / 64 * 64; }

// The weights of a block's dense layers, squeeze-and-excite included.
int64_t weight_bytes(DType dtype, const Node& node, const Image& input) {
  int64_t bytes = 0;
  Image image = input;
  for (const Step& step : node.steps) {
    const int64_t taps = step.kind == StepKind::dense            ? step.kernel_h * step.kernel_w
                         : step.kind == StepKind::squeeze_excite ? 2
                                                                 : 0;
    bytes += taps * image.channels * step.channels * element_bytes(dtype);
    image = after(step, image);
  }
  return bytes;
}

// The thread of the caller alone.
class Alone : public Workers {
 public:
  int64_t count() const override { return 1; }
  void share(int64_t items, const Range& range) const override { range(0, items); }
};

}  // namespace

Program::Program(DType dtype, const std::vector<Value>& inputs, const std::vector<Node>& nodes,
                 const std::vector<int64_t>& outputs)
    : dtype_(dtype), inputs_(int64_t(inputs.size())), nodes_(nodes), outputs_(outputs), values_(inputs) {
  int64_t constants = 0;
  for (const Node& node : nodes) {
    const Value from = values_[size_t(node.source)];
    Image to = from.image;
    for (const Step& step : node.steps) to = after(step, to);
    values_.push_back({from.images, to, {to.size(), 1, to.row(), to.channels}});
    constants_.push_back(constants);
    for (const Step& step : node.steps) constants += step.constants();
  }
  for (size_t node = 0; node < nodes_.size(); node = segments_.back().end) segments_.push_back(segment_from(node));
  make_blocks();
  place();
}

// Bytes of an image that a node reads and writes.
int64_t Program::traffic(size_t node) const {
  int64_t elements = values_[size_t(inputs_) + node].image.size();
  for (const int64_t read : {nodes_[node].source, nodes_[node].residual}) {
    if (read >= 0) elements += values_[size_t(read)].image.size();
  }
  return elements * element_bytes(dtype_);
}

// As many nodes as gain by going together: their images do not fit in the cache, and weights, which every chunk reads again,
// are fewer than what the chunk would bring from beyond it. Other nodes are segments of their own.
Program::Segment Program::segment_from(size_t begin) const {
  const int64_t images = values_[size_t(inputs_) + begin].images;
  const int64_t chunk = std::max<int64_t>(1, kChunkBytes / std::max<int64_t>(1, traffic(begin)));
  size_t end = begin;
  for (; end < nodes_.size() && chunk < images; ++end) {
    const Value& from = values_[size_t(nodes_[end].source)];
    const int64_t bytes = traffic(end) * chunk;
    if (from.images != images || bytes > std::max(2 * kChunkBytes, traffic(begin))) break;
    if (weight_bytes(dtype_, nodes_[end], from.image) > bytes) break;
  }
  if (end <= begin + 1) return {begin, begin + 1, 1, 0};
  return {begin, end, (images + chunk - 1) / chunk, 0};
}

void Program::make_blocks() {
  for (const Segment& segment : segments_) {
    const int64_t images = images_of(segment), less = images / segment.chunks;
    for (size_t i = segment.begin; i < segment.end; ++i) {
      const Node& node = nodes_[i];
      const Value& from = values_[size_t(node.source)];
      const auto block = [&](int64_t count) {
        return block_of(dtype_, count, from.image, from.strides, node.steps, node.epsilon);
      };
      blocks_.push_back(block(images % segment.chunks ? less + 1 : less));
      smaller_.push_back(images % segment.chunks ? block(less) : blocks_.back());
    }
  }
}

// Each result takes the first gap between those that are alive when it is. `results` are in the order of birth.
int64_t Program::lay_out(const std::vector<Placed*>& results) {
  int64_t bytes = 0;
  for (size_t i = 0; i < results.size(); ++i) {
    Placed& place = *results[i];
    for (bool moved = true; moved;) {
      moved = false;
      for (size_t j = 0; j < i; ++j) {
        const Placed& other = *results[j];
        const bool meets = place.offset < other.offset + other.bytes && other.offset < place.offset + place.bytes;
        if (other.last >= place.born && meets) place.offset = other.offset + other.bytes, moved = true;
      }
    }
    bytes = std::max(bytes, place.offset + place.bytes);
  }
  return bytes;
}

// What a segment alone reads has room for a chunk. Everything else that it reads or writes is alive all along.
void Program::place() {
  std::vector<const Segment*> segment_of;
  for (const Segment& segment : segments_) segment_of.resize(segment.end, &segment);
  for (size_t i = 0; i < nodes_.size(); ++i) placed_.push_back({0, 0, int64_t(i), int64_t(i), true, false});
  for (const int64_t output : outputs_) placed_[size_t(output - inputs_)].output = true;
  for (size_t i = 0; i < nodes_.size(); ++i) {
    for (const int64_t read : {nodes_[i].source, nodes_[i].residual}) {
      if (read < inputs_) continue;
      Placed& place = placed_[size_t(read - inputs_)];
      const Segment* segment = segment_of[i];
      if (segment != segment_of[size_t(read - inputs_)]) place.local = false, place.last = int64_t(segment->end) - 1;
      place.last = std::max(place.last, int64_t(i));
    }
  }
  std::vector<Placed*> shared;
  for (Segment& segment : segments_) {
    const int64_t images = images_of(segment), chunk = (images + segment.chunks - 1) / segment.chunks;
    std::vector<Placed*> local;
    for (size_t i = segment.begin; i < segment.end; ++i) {
      Placed& place = placed_[i];
      if (place.output) continue;  // in a tensor of its own
      const int64_t image = values_[size_t(inputs_) + i].image.size() * element_bytes(dtype_);
      place.bytes = aligned((place.local ? chunk : images) * image);
      if (!place.local) place.born = int64_t(segment.begin);
      (place.local ? local : shared).push_back(&place);
    }
    segment.local_bytes = lay_out(local);
  }
  shared_bytes_ = lay_out(shared);
}

// What a thread, or all of them together, need beside what lies between segments.
int64_t Program::bytes_of_slot(const Segment& segment, int64_t workers) const {
  int64_t most = 0;
  for (size_t i = segment.begin; i < segment.end; ++i) {
    most = std::max({most, blocks_[i]->workspace_bytes(workers), smaller_[i]->workspace_bytes(workers)});
  }
  return segment.local_bytes + aligned(most);
}

int64_t Program::workspace_bytes(int64_t workers) const {
  int64_t most = 0;
  for (const Segment& segment : segments_) {
    most = std::max(most, bytes_of_slot(segment, workers));
    if (segment.chunks > 1) most = std::max(most, workers * bytes_of_slot(segment, 1));
  }
  return shared_bytes_ + most;
}

// What a call has for all segments.
struct Program::Run {
  const ProgramCall& call;
  std::vector<unsigned char*> at;  // of each value, but for local ones
  std::vector<Coming> next;        // what is read first from a block on
};

void Program::run(const ProgramCall& call, const Workers& workers) const {
  Run run = {call, {}, std::vector<Coming>(nodes_.size() + 1)};
  for (const void* input : call.inputs) run.at.push_back(static_cast<unsigned char*>(const_cast<void*>(input)));
  for (const Placed& place : placed_) run.at.push_back(call.workspace + place.offset);
  for (size_t i = 0; i < outputs_.size(); ++i)
    run.at[size_t(outputs_[i])] = static_cast<unsigned char*>(call.outputs[i]);
  for (size_t i = nodes_.size(); i-- > 0;) {
    run.next[i] = blocks_[i]->first(call.constants + constants_[i], run.next[i + 1]);
  }
  const int64_t count = workers.count();
  for (const Segment& segment : segments_) {
    unsigned char* memory = call.workspace + shared_bytes_;
    const int64_t chunks = segment.chunks;
    if (count == 1 || (chunks % count > 0 && chunks < 4 * count)) {
      for (int64_t chunk = 0; chunk < chunks; ++chunk) run_chunk(run, segment, chunk, memory, workers);
      continue;
    }
    const int64_t slot_bytes = bytes_of_slot(segment, 1);
    workers.share(count, [&](int64_t begin, int64_t end) {
      for (int64_t slot = begin; slot < end; ++slot) {
        for (int64_t chunk = chunks * slot / count; chunk < chunks * (slot + 1) / count; ++chunk) {
          run_chunk(run, segment, chunk, memory + slot * slot_bytes, Alone());
        }
      }
    });
  }
}

void Program::run_chunk(const Run& run, const Segment& segment, int64_t chunk, unsigned char* memory,
                        const Workers& workers) const {
  const int64_t images = images_of(segment), first = images * chunk / segment.chunks;
  const bool smaller = images * (chunk + 1) / segment.chunks - first == images / segment.chunks;
  const auto at = [&](int64_t value) {
    if (value >= inputs_) {
      const Placed& place = placed_[size_t(value - inputs_)];
      if (place.local && !place.output) return memory + place.offset;
    }
    return run.at[size_t(value)] + first * values_[size_t(value)].strides.image * element_bytes(dtype_);
  };
  for (size_t i = segment.begin; i < segment.end; ++i) {
    const bool again = i + 1 == segment.end && chunk + 1 < segment.chunks;
    BlockCall block;
    block.input = at(nodes_[i].source);
    block.constants = run.call.constants + constants_[i];
    block.residual = nodes_[i].residual >= 0 ? at(nodes_[i].residual) : nullptr;
    block.result = at(inputs_ + int64_t(i));
    block.workspace = memory + segment.local_bytes;
    block.next = run.next[again ? segment.begin : i + 1];
    (smaller ? smaller_[i] : blocks_[i])->run(block, workers);
  }
}

std::shared_ptr<const Program> program_of(DType dtype, const std::vector<Value>& inputs, const std::vector<Node>& nodes,
                                          const std::vector<int64_t>& outputs) {
  static Remembered<Program, 64> programs;
  Key key;
  key.add({int64_t(dtype), int64_t(inputs.size()), int64_t(nodes.size()), int64_t(outputs.size())});
  for (const Value& value : inputs) {
    key.add({value.images, value.image.channels, value.image.height, value.image.width});
    key.add({value.strides.image, value.strides.channel, value.strides.row, value.strides.pixel});
  }
  for (const Node& node : nodes) {
    key.add({node.source, node.residual});
    key.add(node.steps, node.epsilon);
  }
  for (int64_t output : outputs) key.add({output});
  return programs.find(std::move(key), [&] { return std::make_shared<const Program>(dtype, inputs, nodes, outputs); });
}

}  // namespace dwconv
