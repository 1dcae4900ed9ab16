// Which kernel of forward and grad_input in NCHW is preferred where several can compute a shape. The order is that of
// kernels.h: phases, planes, chains, transposed, rows. Vectors have `lanes` values; a plane of 14x14 to 14x14 has 392 elements.
#pragma once
#include "../axis/bands.h"
#include "../preference.h"

namespace dwconv {

constexpr Preference kNchwPreferences[] = {
    // Planes of at most half a vector's width, two rows in a vector.
    {"planes",
     [](const Facts& f) {
       const bool narrow = 2 * f.gather.cols.results <= f.lanes;
       const bool in_cache = f.gather.elements() * f.element_bytes() <= caches::kResultsInCache;
       return narrow && f.gather.channels >= f.lanes && (f.half() || in_cache);
     },
     "vectors of channels are faster than two rows in a vector: 1.2x at 7x7, but in float32 beyond the caches"},

    {"chains", [](const Facts& f) { return !f.dilated() && !f.half(); },
     "without a dilation it is no faster in float32 than rows: 0.9x to 1.05x from 20x20 to 112x112"},
    {"chains", [](const Facts& f) { return !f.dilated() && f.plane() <= 400; },
     "without a dilation vectors of channels are faster on small planes"},
    {"chains", [](const Facts& f) { return f.gather.result_plane() <= 2 * f.lanes; },
     "planes of two vectors are computed faster one row at a time"},

    {"transposed", [](const Facts& f) { return 2 * f.gather.channels < f.lanes; },
     "the channels fill less than half a vector"},
    {"transposed", [](const Facts& f) { return f.plane() > 400 && 2 * f.gather.cols.results > f.lanes; },
     "large planes are read faster row by row: bands of rows would be transposed twice"},
    {"transposed", [](const Facts& f) { return f.plane() > 80 && f.dtype == DType::f64 && f.gather.taps < 49; },
     "the transposition of 8 lanes of float64 pays for planes to 7x7 and for kernels from 7x7 on only"},
    {"transposed",
     [](const Facts& f) { return f.plane() > 80 && !f.half() && f.operation == Operation::grad_input && f.strided(); },
     "at a stride grad_input is faster by rows, but for 16-bit types and planes to 7x7"},
};

}  // namespace dwconv
