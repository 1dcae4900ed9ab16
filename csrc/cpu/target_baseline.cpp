// The kernels compiled for whatever the compiler targets by default, in vectors of 16 bytes: SSE2 on x86-64.
#include "target.h"

#define DWCONV_ISA baseline
#define DWCONV_VEC_BYTES 16
namespace dwconv {
namespace {
#include "target_kernels.h"
}  // namespace
KernelList baseline_kernels() { return {std::begin(kernels), std::end(kernels)}; }
}  // namespace dwconv
