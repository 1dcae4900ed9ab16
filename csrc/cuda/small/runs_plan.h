// How kernel `runs` divides planes of a size into runs, by the shape alone.
#pragma once
#include <algorithm>
#include <cstdint>
#include <numeric>

#include "../kernel.h"

namespace dwconv::cuda {

constexpr int kRunRows = 7;  // of results of a thread, below each other

// A run is a whole number of units. Of 7x7 planes of 2 bytes an element a unit is 8, since 8 planes are 392 elements, which
// are 49 vectors of 16 bytes, and one plane is 98 bytes, which are none.
struct RunsPlan {
  int64_t unit;         // planes, the fewest that make whole vectors of sources and of results
  int64_t threads;      // of a plane
  int64_t bytes;        // of shared memory for a plane, with its weights
  int64_t least, most;  // planes of a run: for two warps at least, and at most

  RunsPlan(const Shape& s, bool transposed, int64_t element_bytes) {
    const int64_t rows = transposed ? s.H : s.OH, columns = transposed ? s.W : s.OW;
    const int64_t source_plane = s.H * s.W, result_plane = s.OH * s.OW;
    unit = 16 / std::gcd(int64_t(16), std::gcd(source_plane, result_plane) * element_bytes);
    threads = columns * ((rows + kRunRows - 1) / kRunRows);
    bytes = std::max(source_plane, result_plane) * element_bytes + s.taps() * int64_t(sizeof(float));
    const auto whole_units = [&](int64_t planes) { return std::max<int64_t>(planes / unit, 1) * unit; };
    const int64_t some_threads = std::max<int64_t>(threads, 1);
    least = whole_units(std::min<int64_t>((56 + some_threads - 1) / some_threads + unit - 1, 64));
    most = std::max(least, whole_units(std::min<int64_t>(224 / some_threads, 64)));
  }
};

}  // namespace dwconv::cuda
