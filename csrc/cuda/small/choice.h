// Which of the kernels for small planes are passed over, and for what.
#pragma once
#include "../kernel.h"
#include "planes_of_block.h"
#include "runs_plan.h"

namespace dwconv::cuda {

inline bool too_few_blocks_of_planes(const Request& r) {
  constexpr int64_t kFewestBlocks = 64;
  return r.shape.N * r.shape.C < kFewestBlocks * planes_of_block(r.shape.OH);
}

inline int64_t bytes_of(DType dtype) { return dtype == DType::f64 ? 8 : dtype == DType::f32 ? 4 : 2; }

// Kernel `stream` reads and writes 8 bytes at stride 1, where they hold the halo, and 16 otherwise.
inline bool rows_are_vectors(const Request& r) {
  const Shape& s = r.shape;
  const bool transposed = r.operation == Operation::grad_input;
  const int64_t columns = transposed ? s.W : s.OW, source_columns = transposed ? s.OW : s.W;
  const int64_t half = 8 / bytes_of(r.dtype), vector = s.stride_w == 1 && half > s.KW / 4 ? half : 2 * half;
  return columns % vector == 0 && source_columns == s.stride_w * columns && s.pad_left == s.KW / 2;
}

inline bool too_few_runs(const Request& r) {
  constexpr int64_t kFewestRuns = 128;
  const RunsPlan plan(r.shape, r.operation == Operation::grad_input, bytes_of(r.dtype));
  return r.shape.N * r.shape.C < kFewestRuns * plan.least;
}

// Nothing here has been timed. What was counted for forward 3x3 in float32 on 9.0 (docs/kernels-cuda.md): how many times fewer
// instructions than the plain kernel each takes for a result.
//
//                                  `planes`   before it, with few results a thread
//   14x14, 8 images, 384 channels    19.6         7.2
//   7x7, 8 images, 960 channels      17.4         2.7
//
// The limits of 64 blocks and 128 runs are chosen by what a device of a hundred multiprocessors has to do then.
constexpr Preference small_preferences[] = {
    {"planes", too_few_blocks_of_planes,
     "with fewer than 64 blocks of 32 planes of 7x7 or 16 of 14x14 a launch waits for the 49 or 98 results of a "
     "thread"},
    {"runs", rows_are_vectors, "rows are whole vectors, which `stream` reads without copying planes to shared memory"},
    {"runs", too_few_runs, "there are fewer than 128 runs of planes, too few for the device"},
};

}  // namespace dwconv::cuda
