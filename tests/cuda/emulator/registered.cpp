// The CUDA registry as kernels of csrc/kernel.h that run on the emulator, so that tests/kernels/harness.py drives them
// like any CPU kernel: one stage of one item, which is the launch.
#include "registered.h"

#include <cstdio>
#include <cstdlib>
#include <utility>
#include <vector>

#include "../../../csrc/cuda/kernel.h"
#include "emulator.h"

namespace dwconv::test {
namespace {

constexpr size_t kMost = 512;

template <size_t index>
void run(const Shape& shape, const Buffers& buffers, int64_t, int64_t) {
  const cuda::Kernel& kernel = cuda::kernels().begin()[index];
  if (const char* error = kernel.launch(shape, buffers, nullptr)) {
    std::fprintf(stderr, "%s: %s\n", kernel.name, error);
    __builtin_trap();  // tests/kernels turns it into a failure that names the kernel and the shape
  }
}

int64_t one(const Shape&) { return 1; }

template <size_t... indices>
std::vector<Kernel> adapt(std::index_sequence<indices...>) {
  constexpr void (*runs[])(const Shape&, const Buffers&, int64_t, int64_t) = {run<indices>...};
  std::vector<Kernel> adapted;
  for (const cuda::Kernel& kernel : cuda::kernels()) {
    if (adapted.size() == kMost) std::abort();
    Kernel k = {kernel.name,   kernel.operation, kernel.dtype,           kernel.layout,
                Isa::baseline, kernel.supports,  kernel.workspace_bytes, {}};
    k.stages[0] = {one, runs[adapted.size()]};
    adapted.push_back(k);
  }
  return adapted;
}

}  // namespace

const std::vector<Kernel>& registered() {
  static const std::vector<Kernel> kernels = adapt(std::make_index_sequence<kMost>());
  return kernels;
}

}  // namespace dwconv::test
