// The CPU registry for Python, as introspect.h describes it.
#include "introspect.h"

#include "../cpu/registry.h"

using namespace dwconv;

namespace {

const Kernel* kernel_at(int64_t index) {
  const KernelList kernels = active_kernels();
  return index < 0 || index >= kernels.end() - kernels.begin() ? nullptr : kernels.begin() + index;
}

}  // namespace

DWCONV_EXPORT const char* dwconv_isa() { return name(active_isa()); }
DWCONV_EXPORT const char* dwconv_cpu_isa() { return name(machine_isa()); }
DWCONV_EXPORT int64_t dwconv_kernel_count() { return active_kernels().end() - active_kernels().begin(); }

// Kernel `index` of the active list, best first, or null.
DWCONV_EXPORT const Kernel* dwconv_kernel(int64_t index) { return kernel_at(index); }

DWCONV_EXPORT const char* dwconv_kernel_field(int64_t index, int64_t field) {
  const Kernel* kernel = kernel_at(index);
  return kernel ? field_of(*kernel, name(kernel->isa), field) : nullptr;
}

DWCONV_EXPORT const char* dwconv_kernel_refusal(int64_t index, const int64_t* numbers) {
  const Kernel* kernel = kernel_at(index);
  if (!kernel) return "there is no such kernel";
  const Shape shape = shape_of(numbers);
  const char* reason = refusal(*kernel, shape);
  return reason ? reason : passed_over(*kernel, shape);
}
