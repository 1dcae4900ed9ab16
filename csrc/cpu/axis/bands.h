// Into how many parts work is cut, and what the kernels assume of caches. Functions of sizes alone, never of the number of
// threads or of the machine: the bits of a result depend on some of them.
#pragma once
#include <algorithm>
#include <cstdint>

#include "lattice.h"

namespace dwconv {

// How many bands to cut `length` rows into, when there are `others` independent pieces of work already: enough for many
// threads, none smaller than `least` rows. 112 rows of one plane, at least 14 each: 8 bands; of 64 planes: 1.
static inline int64_t bands(int64_t length, int64_t least, int64_t others) {
  constexpr int64_t kEnough = 64;
  const int64_t wanted = ceil_div(kEnough, std::max<int64_t>(others, 1));
  return std::max<int64_t>(1, std::min(wanted, length / least));
}

static inline int64_t round_up(int64_t a, int64_t step) { return ceil_div(a, step) * step; }

// Where the operands of a call are likely to lie, by their bytes. Each number is where a measurement changed sides on
// server cores with 1 or 2 MB of L2 and a share of L3 (docs/notes/kernels-cpu.md).
namespace caches {
constexpr int64_t kMB = int64_t(1) << 20;
// forward and grad_input
constexpr int64_t kResultsInCache = 16 * kMB;  // input and result: above, fetching lines of the result gains 1.5x to 2x
constexpr int64_t kImageInL2 = 2 * kMB;        // one image and its result: below, blocks of channels stay in L1
constexpr int64_t kStreamedResult = 7000000;   // the result: above, stores go past the caches
constexpr int64_t kPlanesInL2 = 1 * kMB;       // input and result: above, the next planes are fetched ahead
// grad_weight: input and grad_output
constexpr int64_t kRowsInL2 = 1 * kMB;          // above, rows are fetched ahead
constexpr int64_t kPixelsInL2 = 2 * kMB;        // above, pixels are fetched 8 ahead
constexpr int64_t kPixelsInAnyOrder = 4 * kMB;  // above, what lies side by side is read together
constexpr int64_t kPixelsInL3 = 8 * kMB;        // above, pixels are fetched two rows ahead
constexpr int64_t kShortRowsInL3 = 12 * kMB;    // above, pixels of short rows are fetched a line ahead
}  // namespace caches

// Bytes of input and output, or of their gradients.
static inline int64_t operand_bytes(const Shape& s, int64_t element) {
  return s.N * (s.C * s.H * s.W + s.out_channels() * s.OH * s.OW) * element;
}

}  // namespace dwconv
