// Where a kernel of the dense convolution lets those after it go first.
#pragma once
#include "../preference.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace dwconv {

// Whether vdpbf16ps runs as fast as a multiply-add, and so does twice its work: on AMD.
inline bool multiplies_pairs_fast() {
#if defined(__x86_64__)
  unsigned a, b, c, d;
  return __get_cpuid(0, &a, &b, &c, &d) && b == signature_AMD_ebx;
#else
  return false;
#endif
}

inline constexpr Preference kDensePreferences[] = {
    {"pairs", [](const Facts&) { return !multiplies_pairs_fast(); },
     "this processor multiplies pairs of bf16 at a quarter of the rate of a multiply-add: the 1x1 convolutions of "
     "MobileNetV2 take 4.3 ms, and 3.4 ms where they are widened (Sapphire Rapids, 2026-11-30)"},
};

}  // namespace dwconv
