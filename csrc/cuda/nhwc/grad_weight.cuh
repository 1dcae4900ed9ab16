// grad_weight and the bias gradient for channels_last tensors of float32, bfloat16 and float16, k x k kernels at stride 1
// and 2, dilation 1, multiplier 1.
//
// Method: lanes are neighbours along C, V channels each, and a thread keeps the sums of kTapRows x k taps in registers. It
// walks along rows of the gradient with a window of as many input pixels, of which each step reads S new columns. Where k^2
// sums and the window are more than there are registers for, the rows of taps are divided between threads (threadIdx.z),
// which read the gradient again. Rows that meet no padding above or below take code that asks nothing of rows.
// A block adds its threads through shared memory in order, and a second launch adds the chunks in order; their number is
// a function of the shape. Padding is skipped, not multiplied.
// Bound: k^2 multiply-adds; for each gradient S*kTapRows reads of inputs, mostly from L1.
#pragma once
#include <algorithm>

#include "../chunks.cuh"
#include "../device/divisor.cuh"
#include "lanes.cuh"

namespace dwconv::cuda {

template <class T>
struct NhwcGradWeightParameters {
  const T* input;
  const T* grad_output;
  T* grad_weight;
  T* grad_bias;
  Accumulator<T>* partials;  // null: one chunk, written directly; laid out as in chunks.cuh
  int channels, rows, columns, input_rows, input_columns, pad_top, pad_left;
  int segments, segment;  // of a row of the gradient; an item is one of them
  int64_t items;          // (image, row, segment), the segment fastest
  Divisor by_segments, by_rows;
};

// Adds up one item for the taps (first_tap + i) x (0 ... K - 1), and the bias.
template <bool interior, class T, int K, int S, int V, int kTapRows>
__device__ __forceinline__ void grad_weight_row(const NhwcGradWeightParameters<T>& p, const T* grad, const T* input,
                                                int count, int input_row, int input_column,
                                                Accumulator<T> (&sums)[kTapRows * K + 1][V]) {
  using A = Accumulator<T>;
  const int pixel = p.channels, line = p.input_columns * pixel;
  A x[kTapRows][K][V];
  bool column_exists[K];
  const auto row_exists = [&](int i) { return interior || unsigned(input_row + i) < unsigned(p.input_rows); };
  // Reads column `slot` of the window, and moves on.
  const auto read_column = [&](int slot) {
    column_exists[slot] = unsigned(input_column++) < unsigned(p.input_columns);
#pragma unroll
    for (int i = 0; i < kTapRows; ++i) {
      Vector<T, V> vector;
      vector.words[0] = {};
      if (column_exists[slot] && row_exists(i)) vector = read<V>(input + i * line);
      widen_vector<T, V>(vector, x[i][slot]);
    }
    input += pixel;
  };
#pragma unroll
  for (int c = 0; c < K - S; ++c) read_column(c);
  // K steps, after which the window's slots are where they were.
  for (int first = 0; first < count; first += K) {
#pragma unroll
    for (int step = 0; step < K; ++step) {
      if (first + step >= count) break;
#pragma unroll
      for (int c = 0; c < S; ++c) read_column((step * S + K - S + c) % K);
      Vector<T, V> vector = read<V>(grad);
      grad += pixel;
      A g[V];
      widen_vector<T, V>(vector, g);
#pragma unroll
      for (int v = 0; v < V; ++v) sums[kTapRows * K][v] += g[v];
#pragma unroll
      for (int i = 0; i < kTapRows; ++i) {
#pragma unroll
        for (int kw = 0; kw < K; ++kw) {
          const int slot = (step * S + kw) % K;
#pragma unroll
          for (int v = 0; v < V; ++v) {
            if (column_exists[slot] && row_exists(i)) {
              sums[i * K + kw][v] = multiply_add(x[i][slot][v], g[v], sums[i * K + kw][v]);
            }
          }
        }
      }
    }
  }
}

template <class T, int K, int S, int V, int kTapRows>
__global__ void __launch_bounds__(128, 4) nhwc_grad_weight(NhwcGradWeightParameters<T> p) {
  using A = Accumulator<T>;
  constexpr int kSums = kTapRows * K + 1, kTaps = K * K;
  static_assert(Vector<T, V>::kWords == 1);
  DWCONV_SHARED_MEMORY(A, shared);  // (blockDim.y, lanes * V), one sum of each thread at a time
  const int lanes = int(blockDim.x) * V, lane = int(threadIdx.x) * V;
  const int channel = int(blockIdx.x) * lanes + lane;
  const int first_tap = int(blockIdx.z) * kTapRows;
  const bool has_channels = channel < p.channels;
  const int64_t chunks = gridDim.y, chunk = blockIdx.y;
  A sums[kSums][V];
#pragma unroll
  for (int i = 0; i < kSums * V; ++i) sums[i / V][i % V] = A(0);
  for (int64_t item = chunk * blockDim.y + threadIdx.y; has_channels && item < p.items; item += chunks * blockDim.y) {
    const int64_t line = p.by_segments.divide(item), image = p.by_rows.divide(line);
    const int row = int(line - image * p.rows), column = int(item - line * p.segments) * p.segment;
    const int count = p.columns - column < p.segment ? p.columns - column : p.segment;
    const int input_row = row * S - p.pad_top + first_tap, input_column = column * S - p.pad_left;
    const T* grad = p.grad_output + ((line * p.columns + column) * p.channels + channel);
    const T* input =
        p.input + (((image * p.input_rows + input_row) * p.input_columns + input_column) * p.channels + channel);
    if (input_row >= 0 && input_row + kTapRows <= p.input_rows) {
      grad_weight_row<true, T, K, S, V, kTapRows>(p, grad, input, count, input_row, input_column, sums);
    } else {
      grad_weight_row<false, T, K, S, V, kTapRows>(p, grad, input, count, input_row, input_column, sums);
    }
  }

  A* const own = shared + threadIdx.y * lanes + lane;
#pragma unroll
  for (int i = 0; i < kSums; ++i) {
#pragma unroll
    for (int v = 0; v < V; ++v) own[v] = sums[i][v];
    __syncthreads();
    const bool is_bias = i == kSums - 1;
    const int tap = first_tap * K + i;
    if (threadIdx.y == 0 && has_channels && (is_bias ? blockIdx.z == 0 : tap < kTaps)) {
#pragma unroll
      for (int v = 0; v < V; ++v) {
        A sum = own[v];
        for (int y = 1; y < int(blockDim.y); ++y) sum += own[y * lanes + v];
        const int64_t at = is_bias ? channel + v : int64_t(channel + v) * kTaps + tap;
        if (p.partials) {
          const int64_t each = int64_t(p.channels) * (is_bias ? 1 : kTaps);
          p.partials[(is_bias ? chunks * p.channels * kTaps : 0) + chunk * each + at] = sum;
        } else if (!is_bias) {
          p.grad_weight[at] = narrow<T>(sum);
        } else if (p.grad_bias) {
          p.grad_bias[at] = narrow<T>(sum);
        }
      }
    }
    __syncthreads();
  }
}

template <class T, int K, int S>
struct NhwcGradWeight {
  static constexpr const char* (*supports)(const Shape&) = nhwc_refusal<K, S>;
  static constexpr int64_t kSegment = 64;

  static int64_t items(const Shape& s) { return s.N * s.OH * ceil_div(s.OW, kSegment); }

  // By the shape alone: blocks that fill any device, and partial sums of at most a fiftieth of what is read.
  static int64_t chunks(const Shape& s) {
    constexpr int64_t kThreads = 1 << 17, kThreadsOfABlock = 16;
    const int64_t wanted = std::max(ceil_div(kThreads, 128 * std::max<int64_t>(s.C / 32, 1)), ceil_div(items(s), 1024));
    const int64_t pixels = s.N * (s.H * s.W + s.OH * s.OW);
    const int64_t affordable = pixels * int64_t(sizeof(T)) / (50 * (K * K + 1) * int64_t(sizeof(Accumulator<T>)));
    return std::max<int64_t>(1, std::min({wanted, affordable, ceil_div(items(s), kThreadsOfABlock), kMaxGridYZ}));
  }

  static int64_t workspace_bytes(const Shape& s) { return chunks_bytes<T>(s, chunks(s)); }

  template <int V, int kTapRows>
  static const char* launch_lanes(const NhwcGradWeightParameters<T>& p, int64_t chunks, Stream stream) {
    const int lanes = channel_lanes<T>(V, p.channels), down = 128 / lanes;
    const dim3 grid(unsigned(ceil_div(p.channels, lanes * V)), unsigned(chunks), unsigned(ceil_div(K, kTapRows)));
    const size_t shared_bytes = size_t(down) * lanes * V * sizeof(Accumulator<T>);
    return cuda::launch(nhwc_grad_weight<T, K, S, V, kTapRows>, grid, dim3(unsigned(lanes), unsigned(down)),
                        shared_bytes, stream, p);
  }

  static const char* launch(const Shape& s, const Buffers& b, Stream stream) {
    if (s.C == 0) return nullptr;
    const int64_t count = chunks(s);
    NhwcGradWeightParameters<T> p;
    p.input = static_cast<const T*>(b.input);
    p.grad_output = static_cast<const T*>(b.grad_output);
    set_sums<T>(p, b.result, b, count);
    p.channels = int(s.C), p.rows = int(s.OH), p.columns = int(s.OW);
    p.input_rows = int(s.H), p.input_columns = int(s.W);
    p.pad_top = int(s.pad_top), p.pad_left = int(s.pad_left);
    p.segments = int(ceil_div(s.OW, kSegment)), p.segment = int(kSegment);
    p.items = items(s);
    p.by_segments = Divisor(p.segments), p.by_rows = Divisor(p.rows);
    constexpr int kWide = K == 3 ? 4 : 2, kTapRows = K == 7 ? 2 : 3;
    const bool vectors = in_vectors<kWide>(p.input, s.C) && in_vectors<kWide>(p.grad_output, s.C);
    const char* error =
        vectors ? launch_lanes<kWide, kTapRows>(p, count, stream) : launch_lanes<1, kTapRows>(p, count, stream);
    return add_up_chunks<T>(error, p, s, count, stream);
  }
};

}  // namespace dwconv::cuda
