// Where a kernel of rows lets those of csrc/cpu/nchw go first. Ratios are of one thread with AVX-512 (Intel Xeon), medians
// of three runs in turns, 2026-11-30. In NHWC forward and grad_input have no kernel here: those of csrc/cpu/nhwc are as
// fast at 3 to 5 taps (0.6x to 1.4x), and faster at more (0.4x at 31).
#pragma once
#include <algorithm>

#include "../preference.h"

namespace dwconv {

constexpr Preference kSequencePreferences[] = {
    {"lines",
     [](const Facts& f) {
       const int64_t few = std::max(10 * f.lanes, 12 * f.gather.taps);
       return f.operation == Operation::forward && f.gather.cols.results <= few;
     },
     "rows of few results: 0.6x at 32, 0.8x at 64, 1.0x at 160 with 3 taps; 0.7x at 200, 1.0x at 400 with 31"},
    {"lines",
     [](const Facts& f) { return f.operation == Operation::grad_input && f.gather.cols.results <= 2 * f.lanes; },
     "rows of two vectors: 0.9x at 7, 1.0x at 32, 1.0x to 1.2x at 64"},
};

}  // namespace dwconv
