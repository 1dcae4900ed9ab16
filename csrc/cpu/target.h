// Everything that a target needs before its pragma: standard headers, and code that is the same for every ISA.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <type_traits>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "../kernel.h"
#include "activation.h"
#include "float16.h"
#include "lattice.h"
#include "registry.h"

// Code between these is compiled for the ISA named, whatever the command line says.
#if defined(__clang__)
#define DWCONV_PRAGMA(x) _Pragma(#x)
#define DWCONV_TARGET_BEGIN(isa) DWCONV_PRAGMA(clang attribute push(__attribute__((target(isa))), apply_to = function))
#define DWCONV_TARGET_END _Pragma("clang attribute pop")
#else
#define DWCONV_PRAGMA(x) _Pragma(#x)
#define DWCONV_TARGET_BEGIN(isa) _Pragma("GCC push_options") DWCONV_PRAGMA(GCC target(isa))
#define DWCONV_TARGET_END _Pragma("GCC pop_options")
#endif
