#include "registry.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <vector>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "../names.h"
#include "refusal.h"

namespace dwconv {
namespace {

constexpr int kOperations = 3, kDTypes = 4, kLayouts = 2;

constexpr KernelList (*kFamilies[])(Isa) = {nchw_gather_kernels, nhwc_gather_kernels, nchw_grad_weight_kernels,
                                            nhwc_grad_weight_kernels, reference_kernels};

// What machines of this architecture may have, ascending.
#if defined(__x86_64__)
constexpr Isa kIsas[] = {Isa::baseline, Isa::avx2, Isa::avx512};
#elif defined(__aarch64__)
constexpr Isa kIsas[] = {Isa::baseline, Isa::neon};
#else
constexpr Isa kIsas[] = {Isa::baseline};
#endif

#if defined(__x86_64__)
// Not every clang's __builtin_cpu_supports knows the name.
bool has_f16c() {
  unsigned a, b, c = 0, d;
  return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
#endif

int group(Operation operation, DType dtype, Layout layout) {
  return (int(operation) * kDTypes + int(dtype)) * kLayouts + int(layout);
}

Isa isa_from_environment() {
  const char* cap = std::getenv("TORCH_DWCONV_ISA");
  Isa isa = machine_isa();
  // An unknown word changes nothing here: the Python package refuses it when it is imported.
  for (Isa named : kIsas) {
    if (cap && std::strcmp(cap, name(named)) == 0) isa = std::min(isa, named);
  }
  return isa;
}

// Built once, never changed: safe to read from any thread.
struct Active {
  std::vector<Kernel> kernels;
  std::vector<const Kernel*> groups[kOperations * kDTypes * kLayouts];

  Active() {
    for (int isa = int(active_isa()); isa >= 0; --isa) {
      for (const auto family : kFamilies) {
        for (const Kernel& kernel : family(Isa(isa))) kernels.push_back(kernel);
      }
    }
    for (const Kernel& kernel : kernels)
      groups[group(kernel.operation, kernel.dtype, kernel.layout)].push_back(&kernel);
  }
};

const Active& active() {
  static const Active instance;
  return instance;
}

}  // namespace

Isa machine_isa() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  // What the target files are compiled for.
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c() &&
                    __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) {
    return Isa::avx512;
  }
  if (avx2) return Isa::avx2;
#elif defined(__aarch64__)
  return Isa::neon;
#endif
  return Isa::baseline;
}

Isa active_isa() {
  static const Isa isa = isa_from_environment();
  return isa;
}

KernelList active_kernels() {
  const auto& kernels = active().kernels;
  return {kernels.data(), kernels.data() + kernels.size()};
}

const Kernel& select(Operation operation, DType dtype, Layout layout, const Shape& shape) {
  const auto& candidates = active().groups[group(operation, dtype, layout)];
  return **std::find_if(candidates.begin(), candidates.end(),
                        [&](const Kernel* kernel) { return refusal(*kernel, shape) == nullptr; });
}

}  // namespace dwconv
