#include "record.h"

#include <dlfcn.h>

#include <utility>

namespace emulator {
namespace {

bool on = false;
std::vector<Recorded> launches;

}  // namespace

bool recording() { return on; }

void record(void* kernel, dim3 grid, dim3 block, size_t shared_bytes, std::string parameters) {
  Dl_info where = {};
  dladdr(kernel, &where);
  const uintptr_t offset = reinterpret_cast<uintptr_t>(kernel) - reinterpret_cast<uintptr_t>(where.dli_fbase);
  launches.push_back({offset, grid, block, shared_bytes, std::move(parameters)});
}

void start_recording() {
  on = true;
  launches.clear();
}

std::vector<Recorded> stop_recording() {
  on = false;
  return std::move(launches);
}

}  // namespace emulator
