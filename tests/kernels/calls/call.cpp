#include "call.h"

#include <atomic>
#include <cstring>
#include <iterator>
#include <new>
#include <stdexcept>
#include <thread>

#include "fault.h"

namespace dwconv::test {
namespace {

// "12 bytes after the end of input", or that no buffer is near the address.
std::string locate(const void* address, const std::map<std::string, const Guarded*>& memory) {
  for (const auto& [name, buffer] : memory) {
    if (!buffer->owns(address)) continue;
    const auto* p = static_cast<const uint8_t*>(address);
    if (p < buffer->data()) return std::to_string(buffer->data() - p) + " bytes before " + name;
    if (p >= buffer->end()) return std::to_string(p - buffer->end()) + " bytes after the end of " + name;
    return "a write to byte " + std::to_string(p - buffer->data()) + " of the read-only " + name;
  }
  return address ? "an address near no operand" : "a null pointer";
}

}  // namespace

Buffers to_buffers(const Memory& memory) {
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
  buffers.residual = pointer("residual");
  buffers.scale = pointer("scale");
  buffers.mean = pointer("mean");
  buffers.variance = pointer("variance");
  return buffers;
}

Call::Call(const Kernel& kernel, const Shape& shape)
    : kernel_(kernel), memory_(sizeof(Plan), 64, Placement::back, 0xa5), plan_(new(memory_.data()) Plan) {
  struct Planning {
    const Kernel& kernel;
    const Shape& shape;
    Plan& plan;
    static void run(void* self) {
      Planning& p = *static_cast<Planning*>(self);
      p.kernel.make_plan(p.shape, p.plan);
    }
  };
  Planning planning = {kernel, shape, *plan_};
  if (const auto fault = trap_faults(Planning::run, &planning)) {
    throw PlanFault(kernel.name + (": " + std::string(strsignal(fault->signal))) + " at " +
                    locate(fault->address, {{"plan", &memory_}}) + ", while it plans");
  }
  if (memory_.damage()) throw PlanFault(kernel.name + std::string(": wrote beside its plan"));
  memory_.seal();
}

size_t Call::stages() const {
  size_t count = 0;
  while (count < std::size(kernel_.run) && kernel_.run[count]) ++count;
  return count;
}

std::vector<Ranges> Call::ranges(Partition partition, uint64_t seed, int64_t most_chunks) const {
  Random random(seed, {uint64_t(partition)});
  std::vector<Ranges> all;
  for (size_t stage = 0; stage < stages(); ++stage) {
    all.push_back(ranges_of(items(stage), partition, random, most_chunks));
  }
  return all;
}

std::optional<std::string> Call::run_guarded(const Buffers& buffers, const Memory& memory,
                                             const std::vector<Ranges>& ranges) const {
  // What to run, and how far it has come.
  struct Progress {
    const Call& call;
    const Buffers& buffers;
    const std::vector<Ranges>& ranges;
    volatile size_t stage = 0, range = 0;

    static void run(void* self) {
      Progress& p = *static_cast<Progress*>(self);
      for (p.stage = 0; p.stage < p.ranges.size(); p.stage = p.stage + 1) {
        const Ranges& of_stage = p.ranges[p.stage];
        for (p.range = 0; p.range < of_stage.size(); p.range = p.range + 1) {
          const auto [begin, end] = of_stage[p.range];
          p.call.run(p.stage, p.buffers, begin, end);
        }
      }
    }
  };
  Progress progress = {*this, buffers, ranges};
  const auto fault = trap_faults(Progress::run, &progress);
  if (!fault) return std::nullopt;
  const auto [begin, end] = ranges[progress.stage][progress.range];
  const bool in_plan = memory_.owns(fault->address);
  const std::string where =
      in_plan ? locate(fault->address, {{"plan", &memory_}}) : locate(fault->address, {memory.begin(), memory.end()});
  return strsignal(fault->signal) + (" at " + where) + ", in stage " + std::to_string(progress.stage) + ", items [" +
         std::to_string(begin) + ", " + std::to_string(end) + ")";
}

void Call::run_on_threads(const Buffers& buffers, const std::vector<Ranges>& ranges, int threads) const {
  for (size_t stage = 0; stage < ranges.size(); ++stage) {
    std::atomic<size_t> next = 0, arrived = 0;
    const auto work = [&] {
      // Together, so that their work really overlaps. Relaxed, so that nothing but the kernel itself orders its memory.
      arrived.fetch_add(1, std::memory_order_relaxed);
      while (arrived.load(std::memory_order_relaxed) < size_t(threads)) std::this_thread::yield();
      for (;;) {
        const size_t i = next.fetch_add(1, std::memory_order_relaxed);
        if (i >= ranges[stage].size()) return;
        run(stage, buffers, ranges[stage][i].first, ranges[stage][i].second);
      }
    };
    std::vector<std::thread> pool;
    for (int i = 0; i < threads; ++i) pool.emplace_back(work);
    for (std::thread& thread : pool) thread.join();
  }
}

}  // namespace dwconv::test
