// forward and grad_input at stride 1 on tensor cores, for contiguous tensors of bfloat16 and float16, kernels of up
// to 31 x 31, dilation 1, multiplier 1, on devices of 8.0 and newer.
//
// Method: for one row of the kernel, 16 rows of results below each other and 8 columns are a product of matrices: 16 rows of
// sources, and a Toeplitz matrix of the row's weights, weight k - n in row k and column n, zeros elsewhere. A warp owns 16 rows and 8*N columns of
// results. For each row of the kernel it reads N + 2*S - 1 fragments, of 8 columns of sources and multiplies each result's 2*S of
// them by that matrix, S steps of 16. A block owns a channel, whose weights lie in shared memory twice, once moved by one, since
// pairs of a column of the matrix begin at odd elements too. Sources are copied as they are, to a tile (block_tile.cuh).
// Zeros of the matrix and of the padding are multiplied: see plane.cuh for NaN.
// Bound: k*S products of 16x16 by 16x8 for 128 results (93 for 31x31), and reads of shared memory, (N + 2*S) / (2*N) 4-word
// matrices for each.
#pragma once
#include "../device/mma.cuh"
#include "../refusal.h"
#include "block_tile.cuh"

namespace dwconv::cuda {

template <class T>
struct ToeplitzParameters : BlockTileParameters<T> {
  int weights_pitch, weights_words;  // of a row of taps, in elements; of all, in words of 4 bytes
};

constexpr int kZerosBefore = 8;  // zeros before a row of taps

// The weights of a channel: for each row, zeros, its taps and zeros, and the same moved to the left by one.
template <class T>
__device__ __forceinline__ void copy_weights_twice(const ToeplitzParameters<T>& p, int64_t channel, T* weights) {
  const int taps = p.kernel_rows * p.kernel_columns, half = p.weights_pitch / 2;
  const int warp = int(threadIdx.z * blockDim.y + threadIdx.y), warps = int(blockDim.y * blockDim.z);
  const T* from = p.weight + channel * taps;
  for (int row = warp; row < p.kernel_rows; row += warps) {
    for (int i = int(threadIdx.x); i < p.weights_pitch; i += 32) {
      const int column = i < half ? i - kZerosBefore : i - half - kZerosBefore + 1;
      const int tap = row * p.kernel_columns + column;
      weights[row * p.weights_pitch + i] = unsigned(column) < unsigned(p.kernel_columns)
                                               ? __ldg(from + (p.rotated ? taps - 1 - tap : tap))
                                               : narrow<T>(0.0f);
    }
  }
}

// Blocks of warps, in (32 lanes, groups of 16 rows, images).
template <class T, int S, int N>
__global__ void __launch_bounds__(128, 4) nchw_toeplitz(ToeplitzParameters<T> p) {
  constexpr int kFragments = (N + 2 * S) / 2 * 2;  // of 8 columns, read by twos
  DWCONV_SHARED_MEMORY(unsigned, words);
  T* const weights = reinterpret_cast<T*>(words);
  unsigned* const slot = words + p.weights_words + int(threadIdx.z) * p.tile_words;
  T* const tile = reinterpret_cast<T*>(slot);
  const int lane = int(threadIdx.x), group = int(threadIdx.y) * 16;
  // What this lane reads of a row of taps for the first 8 elements: the pair of weights lane%4*2 - lane/4 and the next.
  const int pair = lane % 4 * 2 - lane / 4 + kZerosBefore;
  const T* const own_weights = weights + (pair % 2 ? p.weights_pitch / 2 + pair - 1 : pair);

  for (int64_t channel = blockIdx.x; channel < p.channels; channel += gridDim.x) {
    __syncthreads();
    copy_weights_twice(p, channel, weights);
    for (int64_t item = blockIdx.y; item < p.items; item += gridDim.y) {
      const Tile at(p, item);
      __syncthreads();
      if (at.there) {
        copy_sources(p, at, channel, at.source_row, at.source_row + p.tile_rows + p.kernel_rows - 1, tile);
      }
      __syncthreads();
      float sums[N][4] = {};
      if (at.there) {
        // Rows of the kernel with which a row of this group reads one that exists.
        const int above = at.source_row + group;
        const int first = above < -15 ? -above - 15 : 0,
                  end = p.kernel_rows < p.source_rows - above ? p.kernel_rows : p.source_rows - above;
        const T* from = tile + (group + first + lane % 16) * p.pitch + lane / 16 * 8;
        const T* taps = own_weights + first * p.weights_pitch;
#pragma unroll 1
        for (int kh = first; kh < end; ++kh, from += p.pitch, taps += p.weights_pitch) {
          unsigned fragments[kFragments / 2][4], weight[S][2];
#pragma unroll
          for (int i = 0; i < kFragments / 2; ++i) load_matrices(from + 16 * i, fragments[i]);
#pragma unroll
          for (int i = 0; i < 2 * S; ++i) weight[i / 2][i % 2] = *aligned<const unsigned>(taps + 8 * i);
#pragma unroll
          for (int s = 0; s < S; ++s) {
#pragma unroll
            for (int n = 0; n < N; ++n) {
              const int left = n + 2 * s, right = left + 1;
              const unsigned a[4] = {fragments[left / 2][left % 2 * 2], fragments[left / 2][left % 2 * 2 + 1],
                                     fragments[right / 2][right % 2 * 2], fragments[right / 2][right % 2 * 2 + 1]};
              multiply_matrices<T>(sums[n], a, weight[s]);
            }
          }
        }
      }
      __syncthreads();
      float* const results = reinterpret_cast<float*>(slot);
      if (at.there) {
#pragma unroll
        for (int n = 0; n < N; ++n) {
#pragma unroll
          for (int j = 0; j < 4; ++j) {
            const int row = group + lane / 4 + j / 2 * 8, column = n * 8 + lane % 4 * 2 + j % 2;
            results[row * p.tile_columns + column] = sums[n][j];
          }
        }
      }
      __syncthreads();
      write_results(p, at, channel, results);
    }
  }
}

template <class T, Operation operation>
struct NchwToeplitz {
  static constexpr bool transposed = operation == Operation::grad_input;
  static constexpr int kComputeCapability = 80;
  static constexpr int64_t kLargest = 31;

  static const char* supports(const Shape& s) {
    if (s.KH > kLargest || s.KW > kLargest) return "the kernel is larger than 31x31";
    if (const char* refusal = unit_refusal(s, 1)) return refusal;
    return plane_refusal(s, 1);
  }

  template <int S, int N>
  static const char* launch_tiles(ToeplitzParameters<T>& p, Stream stream) {
    p.weights_pitch = 2 * (kZerosBefore + 16 * S);
    p.weights_words = p.kernel_rows * p.weights_pitch / 2;
    // A row of an odd number of 16-byte words, so that eight rows of a matrix are in different banks.
    p.pitch = ((N + 2 * S) / 2 * 2 + 1) * 8;
    const dim3 block = fit_tile(p, {32, 8 * N, 16, 128, p.weights_words, p.pitch / 2, false});
    const size_t shared_bytes = (size_t(p.weights_words) + size_t(p.tile_words) * size_t(p.slots)) * 4;
    return cuda::launch(nchw_toeplitz<T, S, N>, tile_grid(p), block, shared_bytes, stream, p);
  }

  template <int S>
  static const char* launch_steps(ToeplitzParameters<T>& p, Stream stream) {
    if (p.columns <= 16) return launch_tiles<S, 2>(p, stream);
    if (p.columns % 56 == 0 || p.columns > 96) return launch_tiles<S, 7>(p, stream);
    return launch_tiles<S, 4>(p, stream);
  }

  static const char* launch(const Shape& s, const Buffers& b, Stream stream) {
    ToeplitzParameters<T> p;
    static_cast<PlaneParameters<T>&>(p) = plane_parameters<T>(transposed, s, b);
    if (p.images == 0 || p.channels == 0 || p.rows == 0 || p.columns == 0) return nullptr;
    // Eight columns of results read k + 7 of sources.
    if (p.kernel_columns <= 9) return launch_steps<1>(p, stream);
    return p.kernel_columns <= 25 ? launch_steps<2>(p, stream) : launch_steps<3>(p, stream);
  }
};

}  // namespace dwconv::cuda
