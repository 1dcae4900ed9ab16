// The kernels compiled for AVX2 with FMA and F16C (Haswell, Zen and later).
#include "target.h"

#if defined(__x86_64__)
#define DWCONV_ISA avx2
#define DWCONV_VEC_BYTES 32
DWCONV_TARGET_BEGIN("avx2,fma,f16c,bmi,bmi2")
namespace dwconv {
namespace {
#include "target_kernels.h"
}  // namespace
KernelList avx2_kernels() { return {std::begin(kernels), std::end(kernels)}; }
}  // namespace dwconv
DWCONV_TARGET_END
#else
namespace dwconv {
KernelList avx2_kernels() { return {nullptr, nullptr}; }
}  // namespace dwconv
#endif
