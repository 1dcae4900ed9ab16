// Which of the kernels for filters of many taps are passed over, and for what.
#pragma once
#include "../kernel.h"

namespace dwconv::cuda {

// Nothing here has been timed. In `toeplitz` 8 columns of results are products with 16 columns of sources (32 and 48 for longer
// rows), of which as many as a row has taps are by weights: 3 of 16 for three taps, 9 of 16 for nine. `tiles` takes 2.2 to
// 6.6 times fewer instructions than `window` at 3x3 to 7x7 (counted on 9.0), so it is what computes silu and gelu at stride
// 1, which `stream` cannot.
constexpr Preference large_preferences[] = {
    {"toeplitz", [](const Request& r) { return r.shape.KW < 9 || r.shape.KH < 3; },
     "with fewer than 9 columns or 3 rows of taps too few of its products are by weights"},
    {"tiles", [](const Request& r) { return r.shape.KH * r.shape.KW < 9; },
     "with fewer than nine taps it is not worth copying the sources to shared memory"},
};

}  // namespace dwconv::cuda
