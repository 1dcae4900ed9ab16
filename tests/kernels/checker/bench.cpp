#include "bench.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "memory.h"
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
      : kernel_(kernel),
        shape_(shape),
        input_(stored(operands.input, kernel.dtype)),
        weight_(stored(operands.weight, kernel.dtype)),
        bias_(stored(operands.bias, kernel.dtype)),
        grad_output_(stored(operands.grad_output, kernel.dtype)),
        result_(size_t(result_size(kernel.operation, shape)) * format(kernel.dtype).bytes),
        grad_bias_(operands.bias.size() * format(kernel.dtype).bytes),
        workspace_(size_t(workspace_bytes(kernel, shape))) {
    const bool weight_gradient = kernel.operation == Operation::grad_weight;
    buffers_.input = input_.data();
    buffers_.weight = weight_.data();
    buffers_.bias = kernel.operation == Operation::forward ? bias_.data() : nullptr;
    buffers_.grad_output = grad_output_.data();
    buffers_.result = result_.data();
    buffers_.grad_bias = weight_gradient ? grad_bias_.data() : nullptr;
    buffers_.workspace = workspace_.data();
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
    const double results = double(std::max<int64_t>(1, result_size(kernel_.operation, shape_)));
    std::printf("  %-44s best %10.2f us  median %10.2f us  %8.4f ns/result  %7.2f GFLOP/s\n", kernel_.name, best * 1e6,
                median * 1e6, best / results * 1e9, 2 * shape_.work() / best * 1e-9);
  }

 private:
  void call() const {
    Plan plan;
    kernel_.make_plan(shape_, plan);
    for (int stage = 0; stage < Plan::kMaxStages && kernel_.run[stage]; ++stage) {
      if (plan.items[stage] > 0) kernel_.run[stage](plan, buffers_, 0, plan.items[stage]);
    }
  }

  const Kernel& kernel_;
  const Shape& shape_;
  Aligned input_, weight_, bias_, grad_output_, result_, grad_bias_, workspace_;
  Buffers buffers_;
  int calls_ = 1;
  std::vector<double> times_;
};

}  // namespace

void bench(const std::vector<const Kernel*>& kernels, const std::vector<NamedShape>& shapes, double seconds_each) {
  for (const auto& [name, shape] : shapes) {
    std::printf("%s  %s\n", name.c_str(), to_text(shape).c_str());
    Problem problem(shape, Data::eight_bits, 0);
    std::vector<std::unique_ptr<Contestant>> contestants;
    for (const Kernel* kernel : kernels) {
      if (kernel->supports(shape)) continue;
      contestants.push_back(std::make_unique<Contestant>(*kernel, shape, problem.operands()));
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
