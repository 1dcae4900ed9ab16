#include "registry.h"

#include <algorithm>
#include <vector>

namespace dwconv::cuda {
namespace {

// The dispatch table, best first: the order of the families is the order of preference.
const std::vector<Kernel>& all() {
  static const std::vector<Kernel> kernels = [] {
    std::vector<Kernel> joined;
    for (const KernelList& list :
         {nchw_whole_kernels(), nchw_packed_kernels(), nchw_stream_kernels(), nchw_grad_input_s2_kernels(),
          nchw_toeplitz_kernels(), nchw_large_kernels(), nhwc_stream_kernels(), gather_any_kernels(),
          nchw_stream_grad_weight_kernels(), nhwc_grad_weight_kernels(), grad_weight_any_kernels(),
          nchw_stream_backward_kernels()}) {
      joined.insert(joined.end(), list.begin(), list.end());
    }
    return joined;
  }();
  return kernels;
}

}  // namespace

KernelList kernels() { return {all().data(), all().data() + all().size()}; }

const char* refusal(const Kernel& kernel, const Shape& shape, Activation activation, int compute_capability) {
  if (compute_capability < kernel.compute_capability) return "the device is too old for it";
  if (const char* reason = kernel.supports(shape)) return reason;
  return kernel.short_activations_only && !is_short(activation) ? kShortActivationsOnly : nullptr;
}

const Kernel* select(Operation operation, DType dtype, Layout layout, const Shape& shape, Activation activation,
                     int compute_capability) {
  const auto found = std::find_if(all().begin(), all().end(), [&](const Kernel& kernel) {
    return kernel.operation == operation && kernel.dtype == dtype && kernel.layout == layout &&
           refusal(kernel, shape, activation, compute_capability) == nullptr;
  });
  return found == all().end() ? nullptr : &*found;
}

}  // namespace dwconv::cuda
