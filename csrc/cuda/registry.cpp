#include "registry.h"

#include <cstring>
#include <string>
#include <vector>

namespace dwconv::cuda {
namespace {

struct Row {
  const Preference* preference;
  std::string reason;  // as users read it
};

struct Registry {
  std::vector<Kernel> kernels;
  std::vector<Row> rows;

  Registry() {
    // Best first: the order of the families is the order of preference.
    for (const Family& family : {small_family(), nchw_family(), large_family(), nhwc_family(), any_family()}) {
      kernels.insert(kernels.end(), family.kernels.begin(), family.kernels.end());
      for (const Preference& preference : family.preferences) {
        rows.push_back({&preference, std::string("supports, but: ") + preference.because});
      }
    }
  }
};

const Registry& registry() {
  static const Registry all;
  return all;
}

}  // namespace

KernelList kernels() {
  const std::vector<Kernel>& all = registry().kernels;
  return {all.data(), all.data() + all.size()};
}

const char* refusal(const Kernel& kernel, const Request& request) {
  if (request.compute_capability < kernel.compute_capability) return "the device is too old for it";
  if (const char* reason = kernel.supports(request.shape)) return reason;
  return kernel.short_activations_only && !is_short(request.activation) ? kShortActivationsOnly : nullptr;
}

const char* passed_over(const Kernel& kernel, const Request& request) {
  for (const Row& row : registry().rows) {
    if (std::strcmp(row.preference->method, kernel.method) == 0 && row.preference->passed_over(request)) {
      return row.reason.c_str();
    }
  }
  return nullptr;
}

const Kernel* select(const Request& request) {
  for (const Kernel& kernel : kernels()) {
    if (kernel.operation == request.operation && kernel.dtype == request.dtype && kernel.layout == request.layout &&
        refusal(kernel, request) == nullptr && passed_over(kernel, request) == nullptr) {
      return &kernel;
    }
  }
  return nullptr;
}

}  // namespace dwconv::cuda
