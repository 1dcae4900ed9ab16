// Which kernel of grad_weight is preferred where several can compute a shape. The order is that of kernels.h: in NCHW
// rows3x3, transposed3x3, transposed, rows; in NHWC pixels3x3, pixels, where each runs wherever it can.
#pragma once
#include "../preference.h"

namespace dwconv {

constexpr Preference kGradWeightPreferences[] = {
    {"rows3x3",
     [](const Facts& f) {
       const int64_t width = f.shape.OW, vectors = ceil_div(width, f.lanes);
       const bool narrow = width <= std::max<int64_t>(28, f.lanes) || 4 * width < 3 * f.lanes * vectors;
       return narrow && 3 * f.shape.out_channels() >= f.lanes;
     },
     "transposed planes are faster where rows are short, or fill less than 3/4 of their vectors"},
    {"rows3x3",
     [](const Facts& f) {
       return f.shape.stride_w == 2 && f.vector_bytes() < 64 && 3 * f.shape.out_channels() >= f.lanes;
     },
     "transposed planes are faster than taking every second element without AVX-512"},
    {"transposed3x3", [](const Facts& f) { return 3 * f.shape.out_channels() < f.lanes; },
     "the channels fill less than a third of a vector"},
    {"transposed", [](const Facts& f) { return 3 * f.shape.out_channels() < f.lanes; },
     "the channels fill less than a third of a vector"},
};

}  // namespace dwconv
