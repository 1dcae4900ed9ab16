// grad_weight and the bias gradient for contiguous tensors of float32, bfloat16 and float16, k x k kernels at stride 1 and
// 2, dilation 1, multiplier 1.
//
// Method: a block of 128 threads owns a channel and a chunk of its images. A thread owns V neighbouring columns of the
// gradient and a band of its rows, and walks down the input under them: each input row is read once, as one vector and
// its halos, and meets the k rows of the gradient above it, which roll through registers (bands.cuh). The k^2 sums stay in registers
// until the end; then lanes are added by shuffles in a fixed tree, warps in order, and chunks by a second launch, in
// order. Padding is skipped, not multiplied. V > 1 asks the same of rows and padding as in stream.cuh.
// Bound: k^2 multiply-adds; one read of each input and gradient, and the halos.
#pragma once
#include <algorithm>

#include "bands.cuh"
#include "stream.cuh"

namespace dwconv::cuda {

template <class T>
struct NchwGradWeightParameters {
  const T* input;
  const T* grad_output;
  int rows, columns, input_rows, input_columns, pad_top, pad_left;
  int input_pitch, grad_pitch;  // bytes from row to row
  BandItems items;
  ChannelSums<T> to;
};

// The rows of the gradient that a thread has.
template <class T, int K, int S, int V>
struct GradRows {
  using A = Accumulator<T>;
  using Row = SourceRow<T, K, S, V>;
  static constexpr int kKept = BandWalk<T, K, S, V>::kKept;

  const T* grad;  // row 0 of the band
  int pitch;
  A (&sums)[K * K + 1];
  A kept[kKept][V];

  __device__ __forceinline__ void begin(int place, int row) {
    Vector<T, V> vector = read<V>(row_at(grad, row, pitch));
#pragma unroll
    for (int v = 0; v < V; ++v) {
      kept[place][v] = widen(vector[v]);
      sums[K * K] += kept[place][v];
    }
  }
  __device__ __forceinline__ void meet(int place, int kh, Row& x, const typename Row::Columns& columns) {
    for_each_tap<T, K, S, V>(x, columns, [&](int v, int kw, A value) {
      sums[kh * K + kw] = multiply_add(value, kept[place][v], sums[kh * K + kw]);
    });
  }
  __device__ __forceinline__ void end(int, int) {}
  __device__ __forceinline__ void shift() {
#pragma unroll
    for (int i = 0; i < kKept - 1; ++i) {
#pragma unroll
      for (int v = 0; v < V; ++v) kept[i][v] = kept[i + 1][v];
    }
  }
};

template <class T, int K, int S, int V>
__device__ __forceinline__ void grad_weight_band(const NchwGradWeightParameters<T>& p, int64_t item,
                                                 Accumulator<T> (&sums)[K * K + 1]) {
  using Walk = BandWalk<T, K, S, V>;
  const auto [image, first, strip] = p.items.place(item);
  const int column = strip * V;
  const int64_t plane = image * p.to.channels + blockIdx.x;
  GradRows<T, K, S, V> rows{
      opaque(p.grad_output + plane * p.rows * p.columns + (first * p.columns + column)), p.grad_pitch, sums, {}};
  Walk walk{Walk::Row::columns(column, p.pad_left, p.input_columns),
            opaque(p.input + plane * p.input_rows * p.input_columns + (column * S - p.pad_left)), first * S - p.pad_top,
            p.input_rows, p.input_pitch};
  walk.down(rows, p.rows - first < p.items.band_rows ? p.rows - first : p.items.band_rows);
}

// Blocks that a multiprocessor must be able to hold: the most of which none spills.
template <int K, int S>
constexpr int kGradWeightBlocks = K == 7   ? (S == 1 ? 3 : 4)
                                  : K == 5 ? 5
                                           : 8;

template <class T, int K, int S, int V>
__global__ void __launch_bounds__(128, kGradWeightBlocks<K, S>) nchw_grad_weight(NchwGradWeightParameters<T> p) {
  using A = Accumulator<T>;
  DWCONV_SHARED_MEMORY(A, shared);
  A sums[K * K + 1];
#pragma unroll
  for (int i = 0; i < K * K + 1; ++i) sums[i] = A(0);
  for (int64_t item = int64_t(blockIdx.y) * 128 + threadIdx.x; item < p.items.count; item += int64_t(gridDim.y) * 128) {
    grad_weight_band<T, K, S, V>(p, item, sums);
  }
  add_up<K, false>(p.to, sums, shared);
}

template <class T, int K, int S>
struct NchwGradWeight {
  static const char* supports(const Shape& s) { return NchwStream<T, K, S, Operation::forward>::supports(s); }

  // All by the shape alone, with one column an item, so that neither the device nor an address changes a chunk.
  static int64_t chunks(const Shape& s) {
    constexpr int64_t kBlocks = 1024, kTermsOfAThread = 4096;
    const int64_t terms = s.N * s.OH * s.OW;
    const int64_t wanted =
        std::max(ceil_div(kBlocks, std::max<int64_t>(s.C, 1)), ceil_div(terms, 128 * kTermsOfAThread));
    return std::max<int64_t>(1, std::min({wanted, ceil_div(terms, 128 * 64), kMaxGridYZ}));
  }

  static int64_t workspace_bytes(const Shape& s) { return chunks_bytes<T>(s, chunks(s)); }

  template <int V>
  static const char* launch_columns(NchwGradWeightParameters<T>& p, int64_t images, int64_t chunks, Stream stream) {
    p.items = BandItems(images, p.rows, p.columns, V);
    const dim3 grid(unsigned(p.to.channels), unsigned(chunks));
    return cuda::launch(nchw_grad_weight<T, K, S, V>, grid, dim3(128), kSumsBytes<T, K>, stream, p);
  }

  static const char* launch(const Shape& s, const Buffers& b, Stream stream) {
    if (s.C == 0) return nullptr;
    const int64_t count = chunks(s);
    NchwGradWeightParameters<T> p;
    p.input = static_cast<const T*>(b.input);
    p.grad_output = static_cast<const T*>(b.grad_output);
    set_sums<T>(p.to, b.result, b, count);
    p.to.channels = int(s.C);
    p.rows = int(s.OH), p.columns = int(s.OW), p.input_rows = int(s.H), p.input_columns = int(s.W);
    p.pad_top = int(s.pad_top), p.pad_left = int(s.pad_left);
    p.input_pitch = p.input_columns * int(sizeof(T)), p.grad_pitch = p.columns * int(sizeof(T));
    // Four columns a thread whatever the dtype: more would not leave registers for the sums.
    constexpr int kVector = 4;
    const bool vectors = p.columns > 0 &&
                         SourceRow<T, K, S, kVector>::takes(p.input, p.input_columns, p.columns, p.pad_left) &&
                         in_vectors<kVector>(p.grad_output, p.columns);
    const char* error =
        vectors ? launch_columns<kVector>(p, s.N, count, stream) : launch_columns<1>(p, s.N, count, stream);
    return add_up_chunks<T>(error, p.to, s, count, stream);
  }
};

}  // namespace dwconv::cuda
