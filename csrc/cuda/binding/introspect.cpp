// The CUDA registry for Python, as csrc/binding/introspect.h describes it, and what keeps it from running on a device.
#include "../../binding/introspect.h"

#include "../kernel.h"
#include "machine.h"

using namespace dwconv;

namespace {

const cuda::Kernel* kernel_at(int64_t index) {
  const cuda::KernelList kernels = cuda::kernels();
  return index < 0 || index >= kernels.end() - kernels.begin() ? nullptr : kernels.begin() + index;
}

}  // namespace

DWCONV_EXPORT int64_t dwconv_kernel_count() { return cuda::kernels().end() - cuda::kernels().begin(); }

DWCONV_EXPORT const char* dwconv_kernel_field(int64_t index, int64_t field) {
  const cuda::Kernel* kernel = kernel_at(index);
  return kernel ? field_of(*kernel, "cuda", field) : nullptr;
}

// With an activation of enum Activation, on a device of this compute capability (90: 9.0). A kernel that could and is passed
// over says "supports, but: " and why.
DWCONV_EXPORT const char* dwconv_kernel_refusal(int64_t index, const int64_t* numbers, int64_t activation,
                                                int64_t compute_capability) {
  const cuda::Kernel* kernel = kernel_at(index);
  if (!kernel) return "there is no such kernel";
  const Shape shape = shape_of(numbers);
  const cuda::Request request = {kernel->operation,      kernel->dtype,          kernel->layout, shape,
                                 Activation(activation), int(compute_capability)};
  const char* reason = cuda::refusal(*kernel, request);
  return reason ? reason : cuda::passed_over(*kernel, request);
}

DWCONV_EXPORT const char* dwconv_device_refusal() { return cuda::refusal_of_current_device(); }
