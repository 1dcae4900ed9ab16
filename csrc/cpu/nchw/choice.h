// Which kernel of forward and grad_input in NCHW is preferred where several can compute a shape. The order is that of
// kernels.h: phases, planes, chains, transposed, rows. plane() counts sources and results: 392 for 14x14, 98 for 7x7.
// Ratios are of one thread with AVX-512 (Intel Xeon), minima of 15, 2026-11-30 where a row has no date.
#pragma once
#include "../axis/bands.h"
#include "../preference.h"

namespace dwconv {

constexpr Preference kNchwPreferences[] = {
    {"phases",
     [](const Facts& f) {
       const int64_t columns = std::min(f.gather.cols.results, f.gather.cols.sources);
       return f.vector_bytes() == 32 && 2 * columns <= (f.operation == Operation::forward ? 8 : f.lanes);
     },
     "rows that leave half a vector of AVX2 idle: 0.2x to 0.7x of vectors of channels at 7x7 (2026-12-01)"},
    {"phases",
     [](const Facts& f) {
       return f.vector_bytes() == 32 && f.operation == Operation::forward && f.gather.taps == 25 &&
              f.gather.cols.results <= 8;
     },
     "strips of 5x5 with AVX2 are two results shorter than a vector: 0.5x to 0.8x of other kernels at 14x14 "
     "(2026-12-01)"},
    {"phases",
     [](const Facts& f) {
       return f.vector_bytes() == 32 && f.operation == Operation::forward && f.dtype == DType::f16 && f.plane() <= 400;
     },
     "float16 with AVX2: 0.88x of vectors of channels at 14x14 (2026-12-01)"},

    {"planes",
     [](const Facts& f) {
       const bool in_cache = f.gather.elements() * f.element_bytes() <= caches::kResultsInCache;
       return f.narrow() && f.gather.channels >= f.lanes && (f.half() || in_cache);
     },
     "vectors of channels are faster at 7x7: 1.0x at 3x3, 1.3x at 5x5 and 7x7; in 16-bit types 1.2x to 2x"},

    {"chains", [](const Facts& f) { return !f.dilated() && !f.half(); },
     "without a dilation it is no faster in float32 and float64: 0.9x to 1.1x of rows from 20x20 to 112x112"},
    {"chains", [](const Facts& f) { return !f.dilated() && f.plane() <= 400; },
     "without a dilation vectors of channels are faster to 14x14: 1.7x at 7x7 in bfloat16"},
    {"chains", [](const Facts& f) { return !f.dilated() && f.narrow() && f.gather.channels >= f.lanes; },
     "without a dilation vectors of channels are faster on narrow planes: 1.2x at 200x8, 1.6x at 64x7 in bfloat16"},
    {"chains", [](const Facts& f) { return f.gather.result_plane() <= 2 * f.lanes; },
     "planes of two vectors are computed faster one row at a time"},

    {"transposed", [](const Facts& f) { return 2 * f.gather.channels < f.lanes; },
     "the channels fill less than half a vector"},
    {"transposed", [](const Facts& f) { return f.plane() > 400 && !f.narrow(); },
     "bands of wide planes would be transposed twice: half as fast as rows at 200x16 and 28x28"},
    {"transposed", [](const Facts& f) { return f.plane() > 400 && f.gather.channels < f.lanes; },
     "bands of planes whose channels do not fill a vector: 0.7x of rows at 56x8 with 8 channels"},
    {"transposed", [](const Facts& f) { return f.plane() > 80 && f.dtype == DType::f64 && f.gather.taps < 49; },
     "the transposition of 8 lanes of float64 pays for planes below 7x7 and for kernels from 7x7 on (2026-11-23)"},
    {"transposed",
     [](const Facts& f) { return f.plane() > 80 && !f.half() && f.operation == Operation::grad_input && f.strided(); },
     "at a stride grad_input is faster by rows, but for 16-bit types and planes below 7x7 (2026-11-23)"},
};

}  // namespace dwconv
