// forward and grad_input at stride 1 for contiguous tensors of float32, bfloat16 and float16, kernels of up to 31 x 31 taps
// of any form, dilation 1, multiplier 1.
//
// Method: a block owns a channel, whose weights are in shared memory as float32, and for one tile of results at a time the
// sources that they read, as float32 too. A thread owns eight columns and R rows of results. It walks down the rows of
// sources, and along each by four taps: four more sources and R times four weights from shared memory make 32*R
// multiply-adds. Rows of sources and groups of taps that lie in the padding as a whole are left out, what padding remains is
// zeros; so are the rows of weights above and below the kernel: see plane.cuh for NaN. Images share a block where one
// has too few results for it. Results leave through shared memory, in the order of memory.
// Bound: k^2 multiply-adds, times (k + R - 1) / k for the rows of weights that are zeros.
#pragma once
#include <algorithm>

#include "../device/vector.cuh"
#include "../refusal.h"
#include "block_tile.cuh"

namespace dwconv::cuda {

constexpr int kColumns = 8;

template <class T>
struct TilesParameters : BlockTileParameters<T> {
  int weights_pitch, weights_floats;  // of a row of taps, and of all
};

// The weights of a channel as they meet the sources, with `margin` rows of zeros before and after them, and zeros after
// each row.
template <class T>
__device__ __forceinline__ void copy_padded_weights(const TilesParameters<T>& p, int64_t channel, int margin,
                                                    float* weights, int thread, int threads) {
  const int taps = p.kernel_rows * p.kernel_columns;
  const T* from = p.weight + channel * taps;
  if (thread >= threads / 32 * 32) return;
  for (int row = thread / 32 - margin; row < p.kernel_rows + margin; row += threads / 32) {
    for (int column = thread % 32; column < p.weights_pitch; column += 32) {
      const bool inside = unsigned(row) < unsigned(p.kernel_rows) && column < p.kernel_columns;
      const int tap = row * p.kernel_columns + column;
      weights[(row + margin) * p.weights_pitch + column] =
          inside ? widen(__ldg(from + (p.rotated ? taps - 1 - tap : tap))) : 0.0f;
    }
  }
}

template <int R>
__device__ __forceinline__ void load_weights(const float* w, int pitch, float4 (&to)[R]) {
#pragma unroll
  for (int r = 0; r < R; ++r) to[r] = *aligned<const float4>(w + (R - 1 - r) * pitch);
}

// 128 threads, in (groups of columns, groups of rows, images).
template <class T, int R>
__global__ void __launch_bounds__(128, 5) nchw_tiles(TilesParameters<T> p) {
  constexpr int V = kColumns;
  DWCONV_SHARED_MEMORY(float, weights);
  float* const tile = weights + p.weights_floats + threadIdx.z * p.tile_words;
  const int column = int(threadIdx.x) * V, group = int(threadIdx.y) * R;
  const int threads = int(blockDim.x * blockDim.y * blockDim.z);
  const int thread = int((threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x);

  for (int64_t channel = blockIdx.x; channel < p.channels; channel += gridDim.x) {
    __syncthreads();
    copy_padded_weights(p, channel, R - 1, weights, thread, threads);
    for (int64_t item = blockIdx.y; item < p.items; item += gridDim.y) {
      const Tile at(p, item);
      __syncthreads();
      copy_sources(p, at, channel, at.first_source, at.end_source, tile);
      __syncthreads();
      float acc[R][V] = {};
      // Rows of sources that these results read and that there are; taps of which one at least is inside.
      const int above = at.source_row + group, left = at.source_column + column;
      const int first = above > at.first_source ? above : at.first_source, below = above + R - 1 + p.kernel_rows;
      const int first_tap = left < -(V - 1) ? (-left - (V - 1)) & ~3 : 0;
      const int inside_taps = p.source_columns - left, alone = p.kernel_columns % 4 == 1 ? p.kernel_columns - 1 : -1;
      const int all_taps = alone < 0 ? p.kernel_columns : alone, taps = inside_taps < all_taps ? inside_taps : all_taps;
      const bool any = inside_taps > 0 && first_tap < p.kernel_columns;
      const int end = any ? (below < at.end_source ? below : at.end_source) : first;
      const float* x = tile + (first - at.first_source) * p.pitch + column;
      const float* w = weights + (first - above) * p.weights_pitch;
      for (int row = first; row < end; ++row, x += p.pitch, w += p.weights_pitch) {
        float window[V + 4];
#pragma unroll
        for (int i = 0; i < V; i += 4) {
          *aligned<float4>(window + i) = *aligned<const float4>(x + first_tap + i);
        }
#pragma unroll 3
        for (int tap = first_tap; tap < taps; tap += 4) {
          *aligned<float4>(window + V) = *aligned<const float4>(x + tap + V);
          float4 weight[R];
          load_weights<R>(w + tap, p.weights_pitch, weight);
#pragma unroll
          for (int r = 0; r < R; ++r) {
#pragma unroll
            for (int v = 0; v < V; ++v) {
              acc[r][v] = multiply_add(window[v], weight[r].x, acc[r][v]);
              acc[r][v] = multiply_add(window[v + 1], weight[r].y, acc[r][v]);
              acc[r][v] = multiply_add(window[v + 2], weight[r].z, acc[r][v]);
              acc[r][v] = multiply_add(window[v + 3], weight[r].w, acc[r][v]);
            }
          }
#pragma unroll
          for (int i = 0; i < V; ++i) window[i] = window[i + 4];
        }
        if (alone >= 0 && alone < inside_taps) {
#pragma unroll
          for (int r = 0; r < R; ++r) {
            const float weight = w[(R - 1 - r) * p.weights_pitch + alone];
#pragma unroll
            for (int v = 0; v < V; ++v) acc[r][v] = multiply_add(window[v], weight, acc[r][v]);
          }
        }
      }
      __syncthreads();
#pragma unroll
      for (int r = 0; r < R && at.there; ++r) {
#pragma unroll
        for (int v = 0; v < V; v += 4) {
          *aligned<float4>(tile + (group + r) * p.tile_columns + column + v) = *aligned<const float4>(&acc[r][v]);
        }
      }
      __syncthreads();
      write_results(p, at, channel, tile);
    }
  }
}

template <class T, Operation operation>
struct NchwTiles {
  static constexpr bool transposed = operation == Operation::grad_input;
  static constexpr int64_t kLargest = 31;

  static const char* supports(const Shape& s) {
    if (s.KH > kLargest || s.KW > kLargest) return "the kernel is larger than 31x31";
    if (const char* refusal = unit_refusal(s, 1)) return refusal;
    return plane_refusal(s, 1);
  }

  template <int R>
  static const char* launch_rows(TilesParameters<T>& p, Stream stream) {
    p.weights_pitch = int(ceil_div(p.kernel_columns, 4)) * 4;
    p.weights_floats = (p.kernel_rows + 2 * (R - 1)) * p.weights_pitch;
    const int across = int(std::min<int64_t>(ceil_div(p.columns, kColumns), 8));
    p.pitch = across * kColumns + p.weights_pitch;
    const dim3 block = fit_tile(p, {across, across * kColumns, R, 128, p.weights_floats, p.pitch, true});
    const size_t shared_bytes = (size_t(p.weights_floats) + size_t(p.tile_words) * size_t(p.slots)) * sizeof(float);
    return cuda::launch(nchw_tiles<T, R>, tile_grid(p), block, shared_bytes, stream, p);
  }

  static const char* launch(const Shape& s, const Buffers& b, Stream stream) {
    TilesParameters<T> p;
    static_cast<PlaneParameters<T>&>(p) = plane_parameters<T>(transposed, s, b);
    if (p.images == 0 || p.channels == 0 || p.rows == 0 || p.columns == 0) return nullptr;
    // Four rows a thread read shared memory less, two waste less on kernels of few rows.
    return p.kernel_rows < 16 ? launch_rows<2>(p, stream) : launch_rows<4>(p, stream);
  }
};

}  // namespace dwconv::cuda
