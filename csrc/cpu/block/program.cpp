#include "program.h"

#include <algorithm>

#include "remembered.h"

namespace dwconv {

Program::Program(DType dtype, const std::vector<Value>& inputs, const std::vector<Node>& nodes,
                 const std::vector<int64_t>& outputs)
    : dtype_(dtype), inputs_(int64_t(inputs.size())), nodes_(nodes), outputs_(outputs), values_(inputs) {
  int64_t constants = 0;
  for (const Node& node : nodes) {
    const Value from = values_[size_t(node.source)];
    blocks_.push_back(block_of(dtype, from.images, from.image, from.strides, node.steps, node.epsilon));
    const Image to = blocks_.back()->result();
    values_.push_back({from.images, to, {to.size(), 1, to.row(), to.channels}});
    constants_.push_back(constants);
    for (const Step& step : node.steps) constants += step.constants();
  }
  place(nodes, outputs);
}

// Each result takes the first gap between those that are still to be read.
void Program::place(const std::vector<Node>& nodes, const std::vector<int64_t>& outputs) {
  const int64_t count = int64_t(nodes.size());
  for (int64_t i = 0; i < count; ++i) {
    const int64_t bytes = (values_[size_t(inputs_ + i)].elements() * element_bytes(dtype_) + 63) / 64 * 64;
    placed_.push_back({0, bytes, -1});
  }
  for (int64_t i = 0; i < count; ++i) {
    for (const int64_t read : {nodes[size_t(i)].source, nodes[size_t(i)].residual}) {
      if (read >= inputs_) placed_[size_t(read - inputs_)].last_reader = i;
    }
  }
  for (int64_t output : outputs) placed_[size_t(output - inputs_)].bytes = 0;  // in a tensor of its own
  for (int64_t i = 0; i < count; ++i) {
    Placed& place = placed_[size_t(i)];
    for (bool moved = true; moved;) {
      moved = false;
      for (int64_t j = 0; j < i; ++j) {
        const Placed& other = placed_[size_t(j)];
        const bool meets = place.offset < other.offset + other.bytes && other.offset < place.offset + place.bytes;
        if (other.last_reader >= i && meets) place.offset = other.offset + other.bytes, moved = true;
      }
    }
    shared_bytes_ = std::max(shared_bytes_, place.offset + place.bytes);
  }
}

int64_t Program::workspace_bytes(int64_t workers) const {
  int64_t most = 0;
  for (const auto& block : blocks_) most = std::max(most, block->workspace_bytes(workers));
  return shared_bytes_ + most;
}

void Program::run(const ProgramCall& call, const Workers& workers) const {
  std::vector<const void*> at(call.inputs);
  std::vector<Coming> next(nodes_.size() + 1);  // what is read first from a block on
  for (size_t i = nodes_.size(); i-- > 0;) next[i] = blocks_[i]->first(call.constants + constants_[i], next[i + 1]);
  for (size_t i = 0; i < nodes_.size(); ++i) {
    const Node& node = nodes_[i];
    void* result = call.workspace + placed_[i].offset;
    for (size_t output = 0; output < outputs_.size(); ++output) {
      if (outputs_[output] == inputs_ + int64_t(i)) result = call.outputs[output];
    }
    BlockCall block;
    block.input = at[size_t(node.source)];
    block.constants = call.constants + constants_[i];
    block.residual = node.residual >= 0 ? at[size_t(node.residual)] : nullptr;
    block.result = result;
    block.workspace = call.workspace + shared_bytes_;
    block.next = next[i + 1];
    blocks_[i]->run(block, workers);
    at.push_back(result);
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
