// The CUDA registry as kernels of csrc/kernel.h that run on the emulator, so that tests/kernels/harness.py drives them
// like any CPU kernel: one stage of one item, which is the launch.
#include "registered.h"

#include <cstdio>
#include <cstdlib>
#include <new>
#include <utility>
#include <vector>

#include "../../../csrc/cuda/kernel.h"
#include "emulator.h"

namespace dwconv::test {
namespace {

constexpr size_t kMost = 512;

template <size_t index>
void run(const Plan& plan, const Buffers& buffers, int64_t, int64_t) {
  const Shape& shape = *std::launder(reinterpret_cast<const Shape*>(plan.state));
  const cuda::Kernel& kernel = cuda::kernels().begin()[index];
  if (const char* error = kernel.launch(shape, buffers, nullptr)) {
    std::fprintf(stderr, "%s: %s\n", kernel.name, error);
    __builtin_trap();  // tests/kernels turns it into a failure that names the kernel and the shape
  }
}

template <size_t index>
void make_plan(const Shape& shape, Plan& plan) {
  const auto workspace_bytes = cuda::kernels().begin()[index].workspace_bytes;
  new (plan.state) Shape(shape);
  plan.workspace_bytes = workspace_bytes ? workspace_bytes(shape) : 0, plan.items[0] = 1;
}

template <size_t... indices>
std::vector<Kernel> adapt(std::index_sequence<indices...>) {
  constexpr Kernel::Run runs[] = {run<indices>...};
  constexpr void (*plans[])(const Shape&, Plan&) = {make_plan<indices>...};
  std::vector<Kernel> adapted;
  for (const cuda::Kernel& kernel : cuda::kernels()) {
    if (adapted.size() == kMost) std::abort();
    const size_t i = adapted.size();
    adapted.push_back({kernel.name,
                       "emulated",
                       kernel.operation,
                       kernel.dtype,
                       kernel.layout,
                       Isa::baseline,
                       1,
                       kernel.supports,
                       plans[i],
                       {runs[i]}});
  }
  return adapted;
}

}  // namespace

const std::vector<Kernel>& registered() {
  static const std::vector<Kernel> kernels = adapt(std::make_index_sequence<kMost>());
  return kernels;
}

}  // namespace dwconv::test
