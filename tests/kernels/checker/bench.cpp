#include "bench.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "../calls/buffers.h"
#include "problem.h"

namespace dwconv::test {
namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

struct Free {
  void operator()(void* p) const { std::free(p); }
};

// Memory aligned as PyTorch aligns it.
class Aligned {
 public:
  Aligned() = default;
  explicit Aligned(size_t bytes) : memory_(std::aligned_alloc(64, (bytes + 64) / 64 * 64)) {
    if (!memory_) throw std::bad_alloc();
    std::fill_n(data(), bytes, uint8_t(0));
  }
  uint8_t* data() const { return static_cast<uint8_t*>(memory_.get()); }

 private:
  std::unique_ptr<void, Free> memory_;
};

Aligned stored(const std::vector<double>& values, DType dtype) {
  const size_t bytes = format(dtype).bytes;
  Aligned memory(values.size() * bytes);
  for (size_t i = 0; i < values.size(); ++i) store(values[i], dtype, memory.data() + i * bytes);
  return memory;
}

// One kernel on one shape, ready to be called again and again.
class Contestant {
 public:
  Contestant(const Kernel& kernel, const Shape& shape, const Operands& operands)
      : kernel_(kernel), shape_(shape), workspace_(size_t(Call(kernel, shape).workspace_bytes())) {
    const auto pointer = [&](const char* name) -> void* {
      const auto found = memory_.find(name);
      return found == memory_.end() ? nullptr : found->second.data();
    };
    for (const Input& input : inputs(kernel.operation, {true, true})) {
      memory_[input.name] = stored(in_layout(operands, input, kernel.layout, kernel.dtype, shape),
                                   stored_as(input.in_accumulator, kernel.dtype));
    }
    for (const Output& output : outputs(kernel.operation, {true, true})) {
      const int64_t numbers = size(output.answer, shape);
      memory_[output.name] = Aligned(size_t(numbers) * format(stored_as(output.in_accumulator, kernel.dtype)).bytes);
      results_ = std::max(results_, numbers);
    }
    buffers_ = {pointer("input"),  pointer("weight"),      pointer("bias"),      pointer("grad_output"),
                pointer("result"), pointer("grad_weight"), pointer("grad_bias"), workspace_.data()};
    buffers_.residual = pointer("residual");
    buffers_.scale = pointer("scale");
    buffers_.mean = pointer("mean");
    buffers_.variance = pointer("variance");
    if (kind_of(kernel.operation) == Kind::batch_norm) buffers_.activation = Activation::relu6;
    if (kind_of(kernel.operation) == Kind::sequence) {
      const Form form = {kernel.operation, kernel.dtype, kernel.layout, Placement::inside, {true, false}};
      sequence_ = to_sequence(form, shape, pointer);
      buffers_.sequence = &sequence_;
      buffers_.activation = Activation::silu;
    }
    buffers_.epsilon = operands.epsilon;
    call();
    const double start = now();
    call();
    calls_ = std::max(1, int(200e-6 / std::max(now() - start, 1e-9)));
  }

  // One more measurement, of calls enough to be longer than the clock's grain.
  void measure() {
    const double start = now();
    for (int i = 0; i < calls_; ++i) call();
    times_.push_back((now() - start) / calls_);
  }

  void print() {
    std::sort(times_.begin(), times_.end());
    const double best = times_.front(), median = times_[times_.size() / 2];
    std::printf("  %-44s best %10.2f us  median %10.2f us  %8.4f ns/result  %7.2f GFLOP/s\n", kernel_.name, best * 1e6,
                median * 1e6, best / double(std::max<int64_t>(1, results_)) * 1e9, 2 * shape_.work() / best * 1e-9);
  }

 private:
  // As the library calls it, the plan included.
  void call() const {
    Plan plan;
    kernel_.make_plan(shape_, plan);
    for (int stage = 0; stage < Plan::kMaxStages && kernel_.run[stage]; ++stage) {
      if (plan.items[stage] > 0) kernel_.run[stage](plan, buffers_, 0, plan.items[stage]);
    }
  }

  const Kernel& kernel_;
  const Shape shape_;
  int64_t results_ = 0;
  Aligned workspace_;
  std::map<std::string, Aligned> memory_;
  Buffers buffers_;
  Sequence sequence_;
  int calls_ = 1;
  std::vector<double> times_;
};

}  // namespace

void bench(const std::vector<const Kernel*>& kernels, const std::vector<Case>& cases, double seconds_each) {
  for (const Case& each : cases) {
    std::printf("%s  %s\n", each.name.c_str(), to_text(each.shape).c_str());
    const Operands operands = draw(each.shape, each.kind, Data::eight_bits, 0);
    std::vector<std::unique_ptr<Contestant>> contestants;
    for (const Kernel* kernel : kernels) {
      if (kind_of(kernel->operation) != each.kind || kernel->supports(each.shape)) continue;
      contestants.push_back(std::make_unique<Contestant>(*kernel, each.shape, operands));
    }
    const double end = now() + seconds_each * double(contestants.size());
    do {
      for (const auto& contestant : contestants) contestant->measure();
    } while (now() < end);
    for (const auto& contestant : contestants) contestant->print();
    std::fflush(stdout);
  }
}

}  // namespace dwconv::test
