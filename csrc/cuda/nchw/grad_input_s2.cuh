// grad_input at stride 2 for contiguous tensors of float32, bfloat16 and float16, k x k kernels, dilation 1, multiplier 1.
//
// Method: a gather by parity. A thread owns a block of V columns and kRows rows of the result that starts where the parity
// of position + padding is that of k/2, so that which taps meet which row and column of grad_output is known to the
// compiler. It streams down grad_output's rows, as stream.cuh does: a vector of V/2 and its halos each. V = 2 takes what is
// not aligned, a predicate for each column. Padding is skipped, not multiplied.
// Bound: k^2 / 4 multiply-adds and one store for each result; (kRows/2 + k/2) / (kRows/2) reads of each source.
#pragma once
#include "../device/address.cuh"
#include "../device/vector.cuh"
#include "../parameters.h"
#include "grid.cuh"
#include "source_row.cuh"
#include "stream.cuh"

namespace dwconv::cuda {

template <class T>
struct GradInputS2Parameters {
  const T* source;
  const T* weight;
  T* result;
  int channels, source_rows, source_columns, rows, columns;
  int first_row, first_column;                // of the first block: 0 or -1
  int first_source_row, first_source_column;  // of the tap in the middle of it
  unsigned source_plane, result_plane;
  PlaneGrid grid;
  int element_bytes;
};

template <class T, int K, int V>
struct GradInputS2Tuning {
  static constexpr int kRows = K == 3 ? 8 : 4;
  // Of a block, and blocks on a multiprocessor: in eight columns a thread, fewer registers than 96 spill on 7.5.
  static constexpr int kThreads = V == 8 ? 128 : 256, kBlocks = V == 8 ? 5 : 4;
  static constexpr int kBefore = (K - 1) / 4,
                       kAfter = (K + 1) / 4;  // source rows before the block's first, after its last
  // Of a source row results need V/2 columns and as many on both sides as a kernel of stride 1 and this size.
  static constexpr int kSpan = K == 7 ? 5 : 3;
  using Row = SourceRow<T, kSpan, 1, V / 2>;
};

// The tap by which the source `source` after the block's first gives to its result `result`; negative or >= K: none.
template <int K>
__device__ constexpr int tap_s2(int result, int source) {
  return result + K / 2 - 2 * source;
}

template <class T, int K, int V>
__global__ void __launch_bounds__(GradInputS2Tuning<T, K, V>::kThreads, GradInputS2Tuning<T, K, V>::kBlocks)
    nchw_grad_input_s2(GradInputS2Parameters<T> p) {
  using A = Accumulator<T>;
  using Tuning = GradInputS2Tuning<T, K, V>;
  using Row = typename Tuning::Row;
  constexpr int kRows = Tuning::kRows, kPitch = kWeightsPitch<K>, kBefore = Tuning::kBefore,
                kSourceRows = kBefore + kRows / 2 + Tuning::kAfter;
  constexpr int kLeft = Tuning::kSpan / 2;
  const int channel = int(blockIdx.y * blockDim.z + threadIdx.z);
  const A* const weights = copy_weights<T, K>(p.weight, channel, p.channels, false);
  const int band = p.grid.band(), strip = p.grid.strip();
  if (channel >= p.channels || band >= p.grid.bands || strip >= p.grid.strips) return;

  const int row = band * kRows + p.first_row, column = strip * V + p.first_column;
  const int source_row = band * (kRows / 2) + p.first_source_row - kBefore;
  const int source_column = strip * (V / 2) + p.first_source_column;
  const unsigned plane = blockIdx.z * unsigned(p.channels) + unsigned(channel);
  const auto columns = Row::columns(source_column, kLeft, p.source_columns);
  const T* from = opaque(p.source + int64_t(uint64_t(plane) * p.source_plane) + int64_t(source_row) * p.source_columns +
                         (source_column - kLeft));
  T* to = opaque(p.result + int64_t(uint64_t(plane) * p.result_plane) + int64_t(row) * p.columns + column);

  A w[K == 3 ? K : 1][kPitch];  // 3x3 stays in registers
  if constexpr (K == 3) {
#pragma unroll
    for (int i = 0; i < K * kPitch; ++i) w[i / kPitch][i % kPitch] = weights[i];
  }
  A acc[kRows][V];
#pragma unroll
  for (int r = 0; r < kSourceRows; ++r) {
    const bool inside = unsigned(source_row + r) < unsigned(p.source_rows);
    Row x;
    if (inside) x.load(from, columns);
    from = next_row(from, p.source_columns, p.element_bytes);
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const int kh = tap_s2<K>(i, r - kBefore);
      // The first source row of a result has the last of its taps.
      if (kh == K - 1 || kh == K - 2) {
#pragma unroll
        for (int v = 0; v < V; ++v) acc[i][v] = A(0);
      }
    }
    compiler_fence();
    if (inside) {
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        const int kh = tap_s2<K>(i, r - kBefore);
        if (kh < 0 || kh >= K) continue;
        A(&taps)[kPitch] = w[K == 3 ? kh : 0];
        if constexpr (K > 3) load_shared(weights + kh * kPitch, taps);
#pragma unroll
        for (int group = 0; group < Row::kGroups; ++group) {
          if (columns.inside[group]) {
#pragma unroll
            for (int v = 0; v < V; ++v) {
#pragma unroll
              for (int c = 0; c < V / 2 + 2 * kLeft; ++c) {
                const int kw = tap_s2<K>(v, c - kLeft);
                if (Row::group_of(c) == group && kw >= 0 && kw < K) {
                  acc[i][v] = multiply_add(x[c], taps[kw], acc[i][v]);
                }
              }
            }
          }
        }
      }
    }
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const int kh = tap_s2<K>(i, r - kBefore);
      if (kh != 0 && kh != 1) continue;  // not its last
      if (unsigned(row + i) < unsigned(p.rows)) {
        Vector<T, V> out;
#pragma unroll
        for (int v = 0; v < V; ++v) out[v] = narrow<T>(acc[i][v]);
        if constexpr (V > 2) {
          write<V>(to, out);
        } else {
#pragma unroll
          for (int v = 0; v < V; ++v) {
            if (unsigned(column + v) < unsigned(p.columns)) to[v] = out[v];
          }
        }
      }
      to = next_row(to, p.columns, p.element_bytes);
    }
  }
}

template <class T, int K, int S>
struct NchwGradInputS2 {
  static_assert(S == 2);

  static const char* supports(const Shape& s) { return NchwStream<T, K, 2, Operation::forward>::supports(s); }

  template <int V>
  static const char* launch_columns(GradInputS2Parameters<T>& p, int64_t images, Stream stream) {
    constexpr int kRows = GradInputS2Tuning<T, K, V>::kRows;
    const PlaneLaunch shares(ceil_div(p.rows - p.first_row, kRows), ceil_div(p.columns - p.first_column, V), p.channels,
                             GradInputS2Tuning<T, K, V>::kThreads);
    p.grid = shares.places;
    return launch_images(nchw_grad_input_s2<T, K, V>, shares, weights_bytes<T, K>(shares.block.z), images, stream, p);
  }

  static const char* launch(const Shape& s, const Buffers& b, Stream stream) {
    GradInputS2Parameters<T> p;
    set_planes<T>(p, true, s, b);
    if (s.N == 0 || p.channels == 0 || p.rows == 0 || p.columns == 0) return nullptr;
    const int64_t down = s.pad_top - K / 2, across = s.pad_left - K / 2;
    p.first_row = -int(down & 1), p.first_column = -int(across & 1);
    p.first_source_row = int((down + p.first_row) / 2), p.first_source_column = int((across + p.first_column) / 2);
    constexpr int kWide = 16 / int(sizeof(T));
    const bool halves = across == 0 && 2 * p.source_columns == p.columns;
    constexpr int kSources = GradInputS2Tuning<T, K, kWide>::Row::kInner;
    if (halves && in_vectors<kWide>(p.result, p.columns) && in_vectors<kSources>(p.source, p.source_columns)) {
      return launch_columns<kWide>(p, s.N, stream);
    }
    return launch_columns<2>(p, s.N, stream);
  }
};

}  // namespace dwconv::cuda
