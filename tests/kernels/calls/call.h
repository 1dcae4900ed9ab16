// A call of a kernel, over any ranges of its items, that survives faults and says where they were.
//
// This is all that knows how a kernel is called.
#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "guarded.h"
#include "kernel.h"
#include "partition.h"

namespace dwconv::test {

using Memory = std::map<std::string, Guarded*>;  // by the names of Buffers; what is missing is null

Buffers to_buffers(const Memory& memory);

// A kernel and its plan for a shape that it supports. The plan lies in guarded memory too, which is read-only once the
// plan is made.
// A kernel that could not make its plan, by its name, and how.
struct PlanFault : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class Call {
 public:
  Call(const Kernel& kernel, const Shape& shape);  // throws PlanFault if the kernel faults

  const Kernel& kernel() const { return kernel_; }
  int64_t workspace_bytes() const { return plan_->workspace_bytes; }
  size_t stages() const;
  int64_t items(size_t stage) const { return plan_->items[stage]; }
  void run(size_t stage, const Buffers& buffers, int64_t begin, int64_t end) const {
    kernel_.run[stage](*plan_, buffers, begin, end);
  }

  // The ranges of every stage.
  std::vector<Ranges> ranges(Partition partition, uint64_t seed, int64_t most_chunks = 7) const;

  // Runs every stage over its ranges, in their order. Returns what ended the call early, if something did: "Segmentation
  // fault at 0 bytes after the end of input, in stage 0, items [2, 3)".
  std::optional<std::string> run_guarded(const Buffers& buffers, const Memory& memory,
                                         const std::vector<Ranges>& ranges) const;

  // Runs each stage on several threads, which take its ranges as they come. A fault here ends the program.
  void run_on_threads(const Buffers& buffers, const std::vector<Ranges>& ranges, int threads) const;

 private:
  const Kernel& kernel_;
  Guarded memory_;
  Plan* plan_;
};

}  // namespace dwconv::test
