// A call of a kernel on guarded memory, over any ranges of its items, that survives faults and says where they were.
#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "guarded.h"
#include "kernel.h"

namespace dwconv::test {

using Ranges = std::vector<std::pair<int64_t, int64_t>>;
using Memory = std::map<std::string, Guarded*>;  // by the names of Buffers; what is missing is null

inline Buffers to_buffers(const Memory& memory) {
  const auto pointer = [&](const char* name) -> void* {
    const auto found = memory.find(name);
    return found == memory.end() ? nullptr : found->second->data();
  };
  Buffers buffers;
  buffers.input = pointer("input");
  buffers.weight = pointer("weight");
  buffers.bias = pointer("bias");
  buffers.grad_output = pointer("grad_output");
  buffers.result = pointer("result");
  buffers.grad_weight = pointer("grad_weight");
  buffers.grad_bias = pointer("grad_bias");
  buffers.workspace = pointer("workspace");
  return buffers;
}

// "12 bytes after the end of input", or the bare address if no operand is near it.
inline std::string locate(const void* address, const Memory& memory) {
  for (const auto& [name, buffer] : memory) {
    if (!buffer->owns(address)) continue;
    const auto* p = static_cast<const uint8_t*>(address);
    const uint8_t* end = buffer->data() + buffer->size();
    if (p < buffer->data()) return std::to_string(buffer->data() - p) + " bytes before " + name;
    if (p >= end) return std::to_string(p - end) + " bytes after the end of " + name;
    return "a write to byte " + std::to_string(p - buffer->data()) + " of the operand " + name;
  }
  return address ? "an address near no operand" : "a null pointer";
}

// The items of each stage.
inline std::vector<int64_t> items_of(const Kernel& kernel, const Plan& plan) {
  std::vector<int64_t> counts;
  for (int stage = 0; stage < Plan::kMaxStages && kernel.run[stage]; ++stage) counts.push_back(plan.items[stage]);
  return counts;
}

inline int64_t workspace_bytes(const Kernel& kernel, const Shape& shape) {
  Plan plan;
  kernel.make_plan(shape, plan);
  return plan.workspace_bytes;
}

// Runs every stage over its ranges, in their order. Returns what ended the call early, if something did.
inline std::optional<std::string> call(const Kernel& kernel, const Plan& plan, const Buffers& buffers,
                                       const Memory& memory, const std::vector<Ranges>& stages) {
  // What to run, and how far it has come.
  struct Progress {
    const Kernel& kernel;
    const Plan& plan;
    const Buffers& buffers;
    const std::vector<Ranges>& stages;
    volatile size_t stage = 0, range = 0;

    static void run(void* self) {
      Progress& p = *static_cast<Progress*>(self);
      for (p.stage = 0; p.stage < p.stages.size(); p.stage = p.stage + 1) {
        const Ranges& ranges = p.stages[p.stage];
        for (p.range = 0; p.range < ranges.size(); p.range = p.range + 1) {
          const auto [begin, end] = ranges[p.range];
          p.kernel.run[p.stage](p.plan, p.buffers, begin, end);
        }
      }
    }
  };
  Progress progress = {kernel, plan, buffers, stages};
  const auto fault = trap_faults(Progress::run, &progress);
  if (!fault) return std::nullopt;
  const auto [begin, end] = stages[progress.stage][progress.range];
  return std::string(kernel.name) + ": " + strsignal(fault->signal) + " at " + locate(fault->address, memory) +
         ", in stage " + std::to_string(progress.stage) + ", items [" + std::to_string(begin) + ", " +
         std::to_string(end) + ")";
}

}  // namespace dwconv::test
