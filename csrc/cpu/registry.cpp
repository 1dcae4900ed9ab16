#include "registry.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "../names.h"
#include "dense/choice.h"
#include "grad_weight/choice.h"
#include "nchw/choice.h"
#include "sequence/choice.h"

namespace dwconv {
namespace {

constexpr int kDTypes = 4, kLayouts = 2;

// A family's kernels, and the table of where another one is preferred.
struct Family {
  KernelList (*kernels)(Isa);
  PreferenceList preferences;
};

// The reference comes last.
constexpr Family kFamilies[] = {
    {sequence_kernels, {std::begin(kSequencePreferences), std::end(kSequencePreferences)}},
    {nchw_kernels, {std::begin(kNchwPreferences), std::end(kNchwPreferences)}},
    {nhwc_kernels, {}},
    {grad_weight_kernels, {std::begin(kGradWeightPreferences), std::end(kGradWeightPreferences)}},
    {dense_kernels, {std::begin(kDensePreferences), std::end(kDensePreferences)}},
    {channelwise_kernels, {}},
    {batch_norm_kernels, {}},
    {pointwise_kernels, {}},
    {reference_kernels, {}},
};

// Vectorised kernels of a depthwise convolution go through the residues of a stride, the interleaved rows of a dilation
// and the width of a border one by one. Beyond these limits no layer is known, and such a walk would take hours for a
// handful of numbers: the reference kernels, whose work depends on the sizes of operands alone, have those shapes.
constexpr int64_t kLargestStride = 64, kLargestDilation = 1 << 16, kLargestPadding = 1 << 24;

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

// A row of a table, with the words that explain prints.
struct Row {
  bool (*passed_over)(const Facts&);
  std::string because;
};

std::vector<Row> rows_of(const Kernel& kernel, PreferenceList table) {
  std::vector<Row> rows;
  for (const Preference& row : table) {
    if (std::strcmp(row.method, kernel.method) != 0) continue;
    rows.push_back({row.passed_over, std::string("supports, but: ") + row.because});
  }
  return rows;
}

// Built once, never changed: safe to read from any thread.
struct Active {
  std::vector<Kernel> kernels;
  std::vector<std::vector<Row>> preferences;  // of each kernel
  std::vector<const Kernel*> groups[kOperations * kDTypes * kLayouts];

  Active() {
    for (int isa = int(active_isa()); isa >= 0; --isa) {
      for (const Family& family : kFamilies) {
        for (const Kernel& kernel : family.kernels(Isa(isa))) {
          kernels.push_back(kernel);
          preferences.push_back(rows_of(kernel, family.preferences));
        }
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

const char* refusal(const Kernel& kernel, const Shape& s) {
  if (kernel.lanes > 1 && kernel.operation < Operation::dense) {
    if (s.stride_h > kLargestStride || s.stride_w > kLargestStride) return "the stride is beyond 64";
    if (s.dilation_h > kLargestDilation || s.dilation_w > kLargestDilation) return "the dilation is beyond 65536";
    if (s.pad_top > kLargestPadding || s.pad_left > kLargestPadding) return "the padding is beyond 16777216";
  }
  return kernel.supports(s);
}

const char* passed_over(const Kernel& kernel, const Shape& shape) {
  const std::vector<Row>& rows = active().preferences[&kernel - active().kernels.data()];
  if (rows.empty()) return nullptr;
  const Facts facts(kernel, shape);
  for (const Row& row : rows) {
    if (row.passed_over(facts)) return row.because.c_str();
  }
  return nullptr;
}

const Kernel& select(Operation operation, DType dtype, Layout layout, const Shape& shape) {
  const auto& candidates = active().groups[group(operation, dtype, layout)];
  return **std::find_if(candidates.begin(), candidates.end(), [&](const Kernel* kernel) {
    return refusal(*kernel, shape) == nullptr && passed_over(*kernel, shape) == nullptr;
  });
}

}  // namespace dwconv
