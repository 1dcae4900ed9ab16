// Compiles a per-target header (target.h) for every target:
//
//   #define DWCONV_PER_TARGET "../nchw/kernels.h"
//   #include "../simd/for_each_target.h"
//   ... DWCONV_OF_TARGET(isa, kernels, none)        avx512::kernels, avx2::kernels...; none for another architecture's
//
// The path is seen from here. A new target is one block here, one value of enum Isa and one test of the CPU in
// registry.cpp. -DDWCONV_ONLY_ISA -DDWCONV_ONLY_avx2 compiles for one target alone, which takes a third of the time.
#include "../../kernel.h"

#ifndef DWCONV_PER_TARGET
#define DWCONV_PER_TARGET "vec.h"  // where this file is opened alone
#endif

#if !defined(DWCONV_ONLY_ISA) || defined(DWCONV_ONLY_baseline) || defined(DWCONV_ONLY_neon)
#include "target.h"  // which sets the default target
#include DWCONV_PER_TARGET
#include "next_target.h"
#define DWCONV_IF_DEFAULT(isa, name) (isa) == Isa::DWCONV_DEFAULT_ISA ? DWCONV_DEFAULT_ISA::name:
#else
#define DWCONV_IF_DEFAULT(isa, name)
#endif

#if defined(__x86_64__)

#if !defined(DWCONV_ONLY_ISA) || defined(DWCONV_ONLY_avx2)
#define DWCONV_ISA avx2  // Haswell, Zen and later
#define DWCONV_VEC_BYTES 32
#define DWCONV_ENTER_ISA DWCONV_PUSH_TARGET("avx2,fma,f16c,bmi,bmi2")
#define DWCONV_LEAVE_ISA DWCONV_POP_TARGET
#include DWCONV_PER_TARGET
#include "next_target.h"
#define DWCONV_IF_AVX2(isa, name) (isa) == Isa::avx2 ? avx2::name:
#endif

#if !defined(DWCONV_ONLY_ISA) || defined(DWCONV_ONLY_avx512)
#define DWCONV_ISA avx512  // F, BW, DQ, VL: every server core since Skylake, every AMD one since Zen 4
#define DWCONV_VEC_BYTES 64
#define DWCONV_ENTER_ISA DWCONV_PUSH_TARGET("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,bmi,bmi2")
#define DWCONV_LEAVE_ISA DWCONV_POP_TARGET
#include DWCONV_PER_TARGET
#include "next_target.h"
#define DWCONV_IF_AVX512(isa, name) (isa) == Isa::avx512 ? avx512::name:
#endif

#endif  // __x86_64__

#ifndef DWCONV_IF_AVX2
#define DWCONV_IF_AVX2(isa, name)
#endif
#ifndef DWCONV_IF_AVX512
#define DWCONV_IF_AVX512(isa, name)
#endif
#define DWCONV_OF_TARGET(isa, name, none) \
  (DWCONV_IF_AVX512(isa, name) DWCONV_IF_AVX2(isa, name) DWCONV_IF_DEFAULT(isa, name)(none))
