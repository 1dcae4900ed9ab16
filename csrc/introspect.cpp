// The registry for Python's ctypes: plain C, no tensors, no Python symbols.
#include <cstddef>

#include "cpu/refusal.h"

#define DWCONV_EXPORT extern "C" __attribute__((visibility("default")))

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

// field: 0 name, 1 map, 2 dtype, 3 layout, 4 isa. Null if there is no such kernel or field.
DWCONV_EXPORT const char* dwconv_kernel_field(int64_t index, int64_t field) {
  const Kernel* kernel = kernel_at(index);
  if (!kernel) return nullptr;
  switch (field) {
    case 0: return kernel->name;
    case 1: return name(kernel->map);
    case 2: return name(kernel->dtype);
    case 3: return name(kernel->layout);
    case 4: return name(kernel->isa);
    default: return nullptr;
  }
}

// Why kernel `index` refuses the shape, whose numbers come in the order of struct Shape; null if it takes it.
DWCONV_EXPORT const char* dwconv_kernel_refusal(int64_t index, const int64_t* numbers) {
  static_assert(sizeof(Shape) == 15 * sizeof(int64_t) && offsetof(Shape, pad_left) == 14 * sizeof(int64_t),
                "callers pass the fields of Shape as 15 numbers");
  const Kernel* kernel = kernel_at(index);
  if (!kernel) return "there is no such kernel";
  const Shape shape = {numbers[0],  numbers[1],  numbers[2],  numbers[3],  numbers[4],
                       numbers[5],  numbers[6],  numbers[7],  numbers[8],  numbers[9],
                       numbers[10], numbers[11], numbers[12], numbers[13], numbers[14]};
  return refusal(*kernel, shape);
}
