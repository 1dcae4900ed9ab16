// The instruction set that a per-target header is compiled for, and what all such headers need.
//
// Kernels are written once and compiled for every target. A per-target header looks like this:
//
//   #if defined(DWCONV_SOMETHING_H) == defined(DWCONV_TARGET_TOGGLE)   // true once for each target
//   #ifdef DWCONV_SOMETHING_H
//   #undef DWCONV_SOMETHING_H
//   #else
//   #define DWCONV_SOMETHING_H
//   #endif
//   #include "what it uses"
//   DWCONV_BEGIN_TARGET          // namespace dwconv::(anonymous)::avx512, compiled for AVX-512
//   ...
//   DWCONV_END_TARGET
//   #endif
//
// for_each_target.h includes a family once for each target and flips the toggle between two of them, so the guards open
// again. A header opened alone, by an editor or a test, is compiled for the target that is defined below.
//
// Namespaces are anonymous: a copy of a function compiled for AVX-512 can never be the one that the linker keeps for an
// older machine. For the same reason standard headers come before DWCONV_BEGIN_TARGET, and functions shared by all
// targets are static.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <new>
#include <numeric>
#include <type_traits>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define DWCONV_PRAGMA(x) _Pragma(#x)
#if defined(__clang__)
#define DWCONV_PUSH_TARGET(isa) DWCONV_PRAGMA(clang attribute push(__attribute__((target(isa))), apply_to = function))
#define DWCONV_POP_TARGET _Pragma("clang attribute pop")
#else
#define DWCONV_PUSH_TARGET(isa) _Pragma("GCC push_options") DWCONV_PRAGMA(GCC target(isa))
#define DWCONV_POP_TARGET _Pragma("GCC pop_options")
#endif

// What the compiler targets by default. All 64-bit Arm has NEON: there it takes the place of baseline.
#if defined(__aarch64__)
#define DWCONV_DEFAULT_ISA neon
#else
#define DWCONV_DEFAULT_ISA baseline  // SSE2 on x86-64
#endif

#ifndef DWCONV_ISA
#define DWCONV_ISA DWCONV_DEFAULT_ISA
#define DWCONV_VEC_BYTES 16
#define DWCONV_ENTER_ISA
#define DWCONV_LEAVE_ISA
#endif

#define DWCONV_BEGIN_TARGET \
  DWCONV_ENTER_ISA          \
  namespace dwconv {        \
  namespace {               \
  namespace DWCONV_ISA {

#define DWCONV_END_TARGET \
  }                       \
  }                       \
  }                       \
  DWCONV_LEAVE_ISA
