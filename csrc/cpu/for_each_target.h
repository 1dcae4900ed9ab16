// Compiles one family of kernels for every ISA. A family's .cpp defines
//
//   DWCONV_FAMILY          the header with the family's bodies and, at its end, their list `kernels`, best first
//   DWCONV_FAMILY_KERNELS  the name of the function, declared in registry.h, that hands out that list for an ISA
//
// and includes this file, which includes the family once for each ISA: inside a namespace of its own with internal
// linkage, so that a copy compiled for AVX-512 can never be the one that the linker keeps for an older machine, and
// after a pragma that sets the ISA whatever the command line says. All standard headers come before the first pragma.
// A new ISA is one block here, one value of enum Isa and one test of the CPU in registry.cpp.
#include "target.h"

namespace dwconv {
namespace {

// What the compiler targets by default. All 64-bit Arm has NEON: there it takes the place of baseline.
#if defined(__aarch64__)
#define DWCONV_DEFAULT_ISA neon
#else
#define DWCONV_DEFAULT_ISA baseline  // SSE2 on x86-64
#endif

#define DWCONV_ISA DWCONV_DEFAULT_ISA
#define DWCONV_VEC_BYTES 16
namespace DWCONV_DEFAULT_ISA {
#include "vec.h"
#include DWCONV_FAMILY
}  // namespace DWCONV_DEFAULT_ISA
#undef DWCONV_ISA
#undef DWCONV_VEC_BYTES

#if defined(__x86_64__)
#define DWCONV_ISA avx2  // Haswell, Zen and later
#define DWCONV_VEC_BYTES 32
DWCONV_TARGET_BEGIN("avx2,fma,f16c,bmi,bmi2")
namespace avx2 {
#include "vec.h"
#include DWCONV_FAMILY
}  // namespace avx2
DWCONV_TARGET_END
#undef DWCONV_ISA
#undef DWCONV_VEC_BYTES

#define DWCONV_ISA avx512  // F, BW, DQ, VL: every server core since Skylake, every AMD one since Zen 4
#define DWCONV_VEC_BYTES 64
DWCONV_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,bmi,bmi2")
namespace avx512 {
#include "vec.h"
#include DWCONV_FAMILY
}  // namespace avx512
DWCONV_TARGET_END
#undef DWCONV_ISA
#undef DWCONV_VEC_BYTES
#endif

}  // namespace

KernelList DWCONV_FAMILY_KERNELS(Isa isa) {
  switch (isa) {
    case Isa::DWCONV_DEFAULT_ISA:
      return {std::begin(DWCONV_DEFAULT_ISA::kernels), std::end(DWCONV_DEFAULT_ISA::kernels)};
#if defined(__x86_64__)
    case Isa::avx2: return {std::begin(avx2::kernels), std::end(avx2::kernels)};
    case Isa::avx512: return {std::begin(avx512::kernels), std::end(avx512::kernels)};
#endif
    default: return {nullptr, nullptr};
  }
}

}  // namespace dwconv
