// The kernels compiled for AVX-512 (F, BW, DQ, VL: every server core since Skylake, every AMD one since Zen 4).
#include "target.h"

#if defined(__x86_64__)
#define DWCONV_ISA avx512
#define DWCONV_VEC_BYTES 64
DWCONV_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,bmi,bmi2")
namespace dwconv {
namespace {
#include "target_kernels.h"
}  // namespace
KernelList avx512_kernels() { return {std::begin(kernels), std::end(kernels)}; }
}  // namespace dwconv
DWCONV_TARGET_END
#else
namespace dwconv {
KernelList avx512_kernels() { return {nullptr, nullptr}; }
}  // namespace dwconv
#endif
