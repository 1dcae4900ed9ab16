// Tiles of results that a block computes from shared memory, for kernels of many taps: where they are, how their sources come
// and how the results leave.
//
// The threads of a block are (x, y, slot): each slot has an image of its own, and the same channel and tile as the others.
#pragma once
#include <algorithm>

#include "../device/divisor.cuh"
#include "../plane.cuh"

namespace dwconv::cuda {

// A walk of a slot's threads over an array in order, without divisions: from one element of a thread to its next.
struct Walk {
  int rows, columns;
  Walk() = default;
  Walk(int threads, int pitch) : rows(threads / pitch), columns(threads % pitch) {}
};

template <class T>
struct BlockTileParameters : PlaneParameters<T> {
  int tile_rows, tile_columns;  // of results
  int pitch;                    // of a row of sources in shared memory, in elements
  int tile_words;               // of a slot, 4 bytes each
  int slots;
  int64_t items;  // of a channel: (images of a block, tile), tiles in order of memory
  Divisor by_down, by_across, by_pitch, by_tile_columns;
  int down, across;
  Walk source_walk, result_walk;
};

struct Tile {
  int row, column;                // the first result
  int source_row, source_column;  // what its first tap reads
  int first_source, end_source;   // rows of sources that the tile reads and that there are
  int64_t image;
  bool there;

  template <class T>
  __device__ __forceinline__ Tile(const BlockTileParameters<T>& p, int64_t item) {
    const int64_t row_of_tiles = p.by_across.divide(item), images = p.by_down.divide(row_of_tiles);
    column = int(item - row_of_tiles * p.across) * p.tile_columns;
    row = int(row_of_tiles - images * p.down) * p.tile_rows;
    source_row = row - p.pad_top, source_column = column - p.pad_left;
    first_source = source_row > 0 ? source_row : 0;
    const int end = source_row + p.tile_rows - 1 + p.kernel_rows;
    end_source = end < p.source_rows ? end : p.source_rows;
    image = images * p.slots + threadIdx.z;
    there = int(threadIdx.z) < p.slots && image < p.images;
    if (!there || end_source < first_source) end_source = first_source;
  }
};

// Rows [first, end) of the sources, p.pitch of each from `at.source_column` on, with zeros where there are none.
template <class U, class T>
__device__ __forceinline__ void copy_sources(const BlockTileParameters<T>& p, const Tile& at, int64_t channel,
                                             int first, int end, U* tile) {
  const T* plane = p.source + (at.image * p.channels + channel) * p.source_rows * p.source_columns;
  const int thread = int(threadIdx.y * blockDim.x + threadIdx.x), threads = int(blockDim.x * blockDim.y);
  int row = int(p.by_pitch.divide(thread)), column = thread - row * p.pitch;
  const int count = (end - first) * p.pitch;
  // Four loads under way by hand: where nvcc unrolls, it divides for the number of steps.
#pragma unroll 1
  for (int i = thread; i < count;) {
#pragma unroll
    for (int j = 0; j < 4; ++j, i += threads) {
      const int h = first + row, w = at.source_column + column;
      const bool inside = unsigned(h) < unsigned(p.source_rows) && unsigned(w) < unsigned(p.source_columns);
      row += p.source_walk.rows, column += p.source_walk.columns;
      if (column >= p.pitch) column -= p.pitch, ++row;
      if (i >= count) continue;
      if constexpr (sizeof(U) == sizeof(T)) {
        tile[i] = inside ? __ldg(plane + (h * p.source_columns + w)) : narrow<T>(0.0f);
      } else {
        tile[i] = inside ? widen(__ldg(plane + (h * p.source_columns + w))) : 0.0f;
      }
    }
  }
}

// From sums in shared memory, tile_columns to a row, to results.
template <class T>
__device__ __forceinline__ void write_results(const BlockTileParameters<T>& p, const Tile& at, int64_t channel,
                                              const float* sums) {
  if (!at.there) return;
  const int64_t plane = at.image * p.channels + channel;
  const float bias = p.bias ? widen(__ldg(p.bias + channel)) : 0.0f;
  T* result = p.result + plane * p.rows * p.columns;
  const int thread = int(threadIdx.y * blockDim.x + threadIdx.x), threads = int(blockDim.x * blockDim.y);
  const int rows = p.rows - at.row < p.tile_rows ? p.rows - at.row : p.tile_rows, columns = p.columns - at.column;
  int row = int(p.by_tile_columns.divide(thread)), column = thread - row * p.tile_columns;
#pragma unroll 1
  for (int i = thread; i < rows * p.tile_columns; i += threads) {
    if (column < columns) {
      float sum[1] = {sums[i] + bias};
      if (is_nan(sum[0])) sum[0] = by_definition(p, plane, channel, at.row + row, at.column + column);
      activate(sum, p.activation);
      result[(at.row + row) * p.columns + at.column + column] = narrow<T>(sum[0]);
    }
    row += p.result_walk.rows, column += p.result_walk.columns;
    if (column >= p.tile_columns) column -= p.tile_columns, ++row;
  }
}

// How a kernel divides a tile: its threads in x have all columns, and each in y so many rows.
struct TileShape {
  int across, columns, rows_of_thread, max_threads;
  int fixed_words, pitch_words;  // shared memory beside the slots' tiles; a row of sources
  bool only_inside;              // rows of sources that do not exist are not copied
};

// Tiles as large as shared memory holds, but enough of them, then images that share a block. Returns the block.
template <class T>
dim3 fit_tile(BlockTileParameters<T>& p, const TileShape& t) {
  constexpr int64_t kSharedWords = 48 * 1024 / 4, kWantedBlocks = 264;
  int down = int(std::min<int64_t>(ceil_div(p.rows, t.rows_of_thread), t.max_threads / t.across));
  const auto words = [&] {
    const int rows = down * t.rows_of_thread, sources = rows + p.kernel_rows - 1;
    return std::max((t.only_inside ? std::min(sources, p.source_rows) : sources) * t.pitch_words, rows * t.columns);
  };
  p.tile_columns = t.columns;
  p.across = int(ceil_div(p.columns, t.columns));
  const auto tiles = [&] { return ceil_div(p.rows, down * t.rows_of_thread) * p.across; };
  while (down > 1 && (t.fixed_words + words() > kSharedWords || p.channels * p.images * tiles() < kWantedBlocks)) {
    down = (down + 1) / 2;
  }
  p.tile_rows = down * t.rows_of_thread;
  p.down = int(ceil_div(p.rows, p.tile_rows));
  p.tile_words = int(ceil_div(words(), 4)) * 4;
  const int threads = t.across * down;
  const int64_t room = (kSharedWords - t.fixed_words) / p.tile_words;
  const int64_t fair = p.channels * p.images * tiles() / kWantedBlocks;
  p.slots = int(std::max<int64_t>(1, std::min<int64_t>({p.images, t.max_threads / threads, room, fair, 32})));
  p.items = ceil_div(p.images, p.slots) * p.down * p.across;
  p.by_down = Divisor(p.down), p.by_across = Divisor(p.across);
  p.by_pitch = Divisor(p.pitch), p.by_tile_columns = Divisor(p.tile_columns);
  p.source_walk = Walk(threads, p.pitch), p.result_walk = Walk(threads, p.tile_columns);
  // A warp at least, be it of idle slots.
  return dim3(unsigned(t.across), unsigned(down), unsigned(std::max(p.slots, (31 + threads) / threads)));
}

template <class T>
dim3 tile_grid(const BlockTileParameters<T>& p) {
  return dim3(unsigned(std::min(p.channels, kMaxGridX)), unsigned(std::min(p.items, kMaxGridYZ)));
}

}  // namespace dwconv::cuda
