// forward and grad_input at stride 1 and 2 for channels_last tensors of float32, bfloat16 and float16, k x k kernels,
// dilation 1, multiplier 1.
//
// Method: lanes are neighbours along C, V channels each. A thread owns kColumns neighbouring columns of results and streams
// down kRows of their rows, unrolled: each source pixel is read once and serves all results that need it while they are in
// registers. Which tap joins which source and result is known to the compiler (StreamAxis), for grad_input at stride 2
// too, where threads begin at whole strides and a quarter of the taps meets each result. grad_input at stride 1 is forward
// with the kernel rotated and the padding mirrored. Weights are copied to shared memory as float32; those of 3x3 go on
// to registers. Rows of padding are branched over. Columns of padding are zeros, which are multiplied: with finite
// weights that adds nothing, and a thread there whose weights are not all finite computes by the definition.
// Bound: k^2 multiply-adds; (kRows + k - 1) (kColumns + k - 1) reads of L1 for kRows kColumns results at stride 1, which is
// why kernels of 5 and 7 have two channels and up to four columns a thread.
#pragma once
#include <algorithm>

#include "../device/activate.cuh"
#include "../device/address.cuh"
#include "../device/divisor.cuh"
#include "../parameters.h"
#include "lanes.cuh"

namespace dwconv::cuda {

template <class T>
struct NhwcStreamParameters : Operands<T> {
  int channels, channel_blocks;
  int source_rows, source_columns, rows, columns;
  int first_row, first_column;                // results of the first thread; those below 0 do not exist
  int first_source_row, first_source_column;  // that it reads
  int bands, strips;                          // of rows, of columns
  int element_bytes;
  Divisor by_channel_blocks;
  bool rotated;  // the kernel, which makes grad_input at stride 1 of forward
  Activation activation;
};

// One dimension of a thread's results: which tap joins a source and a result, both counted from the thread's first.
template <int K, int S, bool transposed>
struct StreamAxis {
  static_assert((K - 1) % S == 0);
  // Outside [0, K): none does.
  __host__ __device__ static constexpr int tap(int source, int result) {
    return transposed ? result + K - 1 - source * S : source - result * S;
  }
  __host__ __device__ static constexpr bool joins(int source, int result) {
    return tap(source, result) >= 0 && tap(source, result) < K;
  }
  // Its inverse, where there is one.
  __host__ __device__ static constexpr int source(int result, int tap) {
    return transposed ? (result + K - 1 - tap) / S : result * S + tap;
  }
  // Of those that a result meets.
  __host__ __device__ static constexpr int first_source(int result) {
    return transposed ? (result + S - 1) / S : result * S;
  }
  __host__ __device__ static constexpr int last_source(int result) {
    return transposed ? (result + K - 1) / S : result * S + K - 1;
  }
  __host__ __device__ static constexpr int sources(int results) { return last_source(results - 1) + 1; }
  // From one thread's first source to the next one's.
  __host__ __device__ static constexpr int step(int results) { return transposed ? results / S : results * S; }
};

// Of a block, at most: rows of 28 and 56 results are whole warps then, whose columns meet in the L1 cache.
constexpr int kLanesThreads = 256;

template <class T, int K, int S, int V, bool transposed>
struct LanesTuning {
  static constexpr int kRows = transposed ? 8 : 7;
  static constexpr int kColumns = S == 2 || K == 3 ? 2 : 4;
  static constexpr bool kWeightsInRegisters = K == 3;
};

// The weights of one row of taps, from the thread's V x K x K in shared memory. V words at a time, whose first may belong
// to the row before.
template <int K, int V>
__device__ __forceinline__ void load_taps(const float* weights, int kh, float (&taps)[V][K]) {
#pragma unroll
  for (int v = 0; v < V; ++v) {
    const int first = (v * K + kh) * K;
#pragma unroll
    for (int at = first / V * V; at < first + K; at += V) {
      float words[V];
      load_shared(weights + at, words);
#pragma unroll
      for (int i = 0; i < V; ++i) {
        if (at + i >= first && at + i < first + K) taps[v][at + i - first] = words[i];
      }
    }
  }
}

// One result of the thread's by the definition, before activation: `source` is the image's first pixel, weight the channel's
// in shared memory.
template <class T, int K, int S, bool transposed>
__device__ __forceinline__ float by_definition(const NhwcStreamParameters<T>& p, const T* source, int source_row,
                                               int source_column, const float* weight, float bias, int row,
                                               int column) {
  using Axis = StreamAxis<K, S, transposed>;
  float sum = bias;
#pragma unroll 1
  for (int tap = 0; tap < K * K; ++tap) {
    const int r = Axis::source(row, tap / K), c = Axis::source(column, tap % K);
    if (Axis::tap(r, row) != tap / K || Axis::tap(c, column) != tap % K) continue;
    if (unsigned(source_row + r) < unsigned(p.source_rows) &&
        unsigned(source_column + c) < unsigned(p.source_columns)) {
      const int64_t pixel = int64_t(source_row + r) * p.source_columns + source_column + c;
      sum = multiply_add(widen(__ldg(source + pixel * p.channels)), weight[tap], sum);
    }
  }
  return sum;
}

// The weights of the block's channels as float32, (channel, tap), then the biases. Lanes that read theirs, V K^2 words
// from one to the next, meet all banks.
template <class T, int K>
__device__ __forceinline__ void copy_weights_of_lanes(const NhwcStreamParameters<T>& p, int first_channel, int channels,
                                                      float* shared, int biases) {
  constexpr int kTaps = K * K;
  const int thread = int((threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x),
            threads = int(blockDim.x * blockDim.y * blockDim.z);
  const T* weight = p.weight + int64_t(first_channel) * kTaps;
#pragma unroll 2
  for (int i = thread; i < channels * kTaps; i += threads) {
    const int channel = i / kTaps, tap = i - channel * kTaps;
    shared[p.rotated ? i + kTaps - 1 - 2 * tap : i] = widen(__ldg(weight + i));
  }
  for (int i = thread; i < channels; i += threads) {
    shared[biases + i] = p.bias ? widen(__ldg(p.bias + first_channel + i)) : 0.0f;
  }
  __syncthreads();
}

template <class T, int K, int S, int V, bool transposed>
__global__ void __launch_bounds__(kLanesThreads, 2) nhwc_stream(NhwcStreamParameters<T> p) {
  using Axis = StreamAxis<K, S, transposed>;
  using Tuning = LanesTuning<T, K, S, V, transposed>;
  constexpr int kTaps = K * K, kRows = Tuning::kRows, kColumns = Tuning::kColumns;
  constexpr int kSourceRows = Axis::sources(kRows), kSourceColumns = Axis::sources(kColumns);
  static_assert(Vector<T, V>::kWords == 1);
  DWCONV_SHARED_MEMORY(float, shared);
  const int64_t image = p.by_channel_blocks.divide(blockIdx.x);
  const int lanes = int(blockDim.x) * V, first_channel = int(blockIdx.x - image * p.channel_blocks) * lanes;
  const int left = p.channels - first_channel, biases = lanes * kTaps;
  copy_weights_of_lanes<T, K>(p, first_channel, left < lanes ? left : lanes, shared, biases);

  const int channel = first_channel + int(threadIdx.x) * V;
  const int strip = int(blockIdx.y * blockDim.y + threadIdx.y), band = int(blockIdx.z * blockDim.z + threadIdx.z);
  if (channel >= p.channels || strip >= p.strips || band >= p.bands) return;
  const int source_column = strip * Axis::step(kColumns) + p.first_source_column,
            column = strip * kColumns + p.first_column;
  const int source_row = band * Axis::step(kRows) + p.first_source_row, row = band * kRows + p.first_row;
  const T* source = p.source + image * p.source_rows * p.source_columns * p.channels + channel;
  const T* from = opaque(source + (int64_t(source_row) * p.source_columns + source_column) * p.channels);
  T* to = opaque(p.result + (image * p.rows * p.columns + int64_t(row) * p.columns + column) * p.channels + channel);
  const int source_line = p.source_columns * p.channels, line = p.columns * p.channels;
  const auto source_exists = [&](int c) { return unsigned(source_column + c) < unsigned(p.source_columns); };
  const auto exists = [&](int o, int j) {
    return unsigned(row + o) < unsigned(p.rows) && unsigned(column + j) < unsigned(p.columns);
  };

  const float* weights = shared + threadIdx.x * (V * kTaps);
  float w[Tuning::kWeightsInRegisters ? K : 1][V][K];
  if constexpr (Tuning::kWeightsInRegisters) {
#pragma unroll
    for (int kh = 0; kh < K; ++kh) load_taps<K, V>(weights, kh, w[kh]);
  }
  if (source_column < 0 || source_column + kSourceColumns > p.source_columns) {
    float zero = 0.0f;
#pragma unroll
    for (int i = 0; i < V * kTaps; ++i) zero = multiply_add(0.0f, weights[i], zero);
    if (zero != 0.0f) {
#pragma unroll 1
      for (int i = 0; i < kRows * kColumns; ++i) {
        const int o = i / kColumns, j = i % kColumns;
        if (!exists(o, j)) continue;
#pragma unroll 1
        for (int v = 0; v < V; ++v) {
          float sum[1] = {by_definition<T, K, S, transposed>(p, source + v, source_row, source_column,
                                                             weights + v * kTaps,
                                                             shared[biases + int(threadIdx.x) * V + v], o, j)};
          activate<true>(sum, p.activation);
          to[(int64_t(o) * p.columns + j) * p.channels + v] = narrow<T>(sum[0]);
        }
      }
      return;
    }
  }

  // Columns that do not exist stay zero: nothing is ever read into them.
  Vector<T, V> x[kSourceColumns];
#pragma unroll
  for (int c = 0; c < kSourceColumns; ++c) x[c].words[0] = {};
  float acc[kRows][kColumns * V];
#pragma unroll
  for (int r = 0; r < kSourceRows; ++r) {
#pragma unroll
    for (int o = 0; o < kRows; ++o) {
      if (r != Axis::first_source(o)) continue;
      float bias[V];
      load_shared(shared + biases + threadIdx.x * V, bias);
#pragma unroll
      for (int i = 0; i < kColumns * V; ++i) acc[o][i] = bias[i % V];
    }
    if (unsigned(source_row + r) < unsigned(p.source_rows)) {
#pragma unroll
      for (int c = 0; c < kSourceColumns; ++c) {
        if (source_exists(c)) x[c] = read<V>(row_at(from, c, p.channels * p.element_bytes));
      }
      float wide[kSourceColumns][V];
#pragma unroll
      for (int c = 0; c < kSourceColumns; ++c) widen_vector<T, V>(x[c], wide[c]);
#pragma unroll
      for (int o = 0; o < kRows; ++o) {
        if (!Axis::joins(r, o)) continue;
        float (&taps)[V][K] = w[Tuning::kWeightsInRegisters ? Axis::tap(r, o) : 0];
        if constexpr (!Tuning::kWeightsInRegisters) load_taps<K, V>(weights, Axis::tap(r, o), taps);
#pragma unroll
        for (int j = 0; j < kColumns; ++j) {
#pragma unroll
          for (int c = 0; c < kSourceColumns; ++c) {
            if (!Axis::joins(c, j)) continue;
#pragma unroll
            for (int v = 0; v < V; ++v) {
              acc[o][j * V + v] = multiply_add(wide[c][v], taps[v][Axis::tap(c, j)], acc[o][j * V + v]);
            }
          }
        }
      }
    }
    from = next_row(from, source_line, p.element_bytes);
#pragma unroll
    for (int o = 0; o < kRows; ++o) {
      if (r != Axis::last_source(o)) continue;
      activate<true>(acc[o], p.activation);
#pragma unroll
      for (int j = 0; j < kColumns; ++j) {
        Vector<T, V> out;
#pragma unroll
        for (int v = 0; v < V; ++v) out[v] = narrow<T>(acc[o][j * V + v]);
        if (exists(o, j)) write<V>(row_at(to, j, p.channels * p.element_bytes), out);
      }
      to = next_row(to, line, p.element_bytes);
    }
  }
}

template <class T, int K, int S, Operation operation>
struct NhwcStream {
  static constexpr bool transposed = operation == Operation::grad_input, rotated = transposed && S == 1,
                        gathers = transposed && S > 1;
  using Axis = StreamAxis<K, S, gathers>;
  static constexpr bool kShortActivationsOnly = true;

  static const char* supports(const Shape& s) {
    if (const char* refusal = nhwc_refusal<K, S>(s)) return refusal;
    // Strips of rows are a dimension of the grid, which ends at 2^16.
    return std::max(s.H, s.OH) > int64_t(1) << 18 ? "a column is too long for one launch" : nullptr;
  }

  // One dimension of the launch: threads, and where the first one begins.
  static int64_t threads(int64_t results, int64_t pad, int per_thread, int& first, int& first_source) {
    if (rotated) pad = K - 1 - pad;
    const int64_t before = gathers ? (pad % S + S) % S : 0;
    first = int(-before);
    first_source = int(gathers ? (pad - before - (K - 1)) / S : -pad);
    return ceil_div(results + before, per_thread);
  }

  template <int V>
  static const char* launch_lanes(NhwcStreamParameters<T>& p, const Shape& s, Stream stream) {
    using Tuning = LanesTuning<T, K, S, V, gathers>;
    p.bands = int(threads(p.rows, s.pad_top, Tuning::kRows, p.first_row, p.first_source_row));
    p.strips = int(threads(p.columns, s.pad_left, Tuning::kColumns, p.first_column, p.first_source_column));
    const int across_channels = channel_lanes<T>(V, p.channels);
    p.channel_blocks = int(ceil_div(p.channels, across_channels * V));
    p.by_channel_blocks = Divisor(p.channel_blocks);
    const int groups = int(ceil_div(p.strips, kLanesThreads / across_channels)),
              across = int(ceil_div(p.strips, groups));
    const int down = std::min(p.bands, kLanesThreads / (across_channels * across));
    const dim3 block{unsigned(across_channels), unsigned(across), unsigned(down)};
    const dim3 grid(unsigned(s.N * p.channel_blocks), unsigned(ceil_div(p.strips, across)),
                    unsigned(ceil_div(p.bands, down)));
    const size_t shared_bytes = (K * K + 1) * across_channels * V * sizeof(float);
    return cuda::launch(nhwc_stream<T, K, S, V, gathers>, grid, block, shared_bytes, stream, p);
  }

  static const char* launch(const Shape& s, const Buffers& b, Stream stream) {
    NhwcStreamParameters<T> p;
    set_planes<T>(p, transposed, s, b);
    if (s.N == 0 || s.C == 0 || p.rows == 0 || p.columns == 0) return nullptr;
    constexpr int kWide = K == 3 ? 4 : 2;
    const bool vectors = in_vectors<kWide>(p.source, s.C) && in_vectors<kWide>(p.result, s.C);
    return vectors ? launch_lanes<kWide>(p, s, stream) : launch_lanes<1>(p, s, stream);
  }
};

}  // namespace dwconv::cuda
