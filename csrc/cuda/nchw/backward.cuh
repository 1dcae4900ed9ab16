// grad_input, grad_weight and the bias gradient in one pass, for contiguous tensors of float32, bfloat16 and float16, k x k
// kernels of 3 and 5 at stride 1, dilation 1, multiplier 1, whose output is as large as the input: three passes over
// tensors instead of four.
//
// Method: with the kernel rotated, the k x k gradients that a position of grad_input is a sum of are those that the input
// at this position is multiplied with in grad_weight. So this is grad_weight.cuh with the roles exchanged: a
// thread owns V columns and a band of rows of the input, without a halo, and walks down grad_output under them; each of
// its rows is read once and meets the k rows of the input above it, twice: once for the k^2 sums of the thread, once for
// the rows of grad_input, which are written when they have met all. A row of the input has a row of grad_output to itself,
// which is its share of the bias gradient. Padding is skipped, not multiplied.
// Bound: 2 k^2 multiply-adds for each element.
#pragma once
#include "grad_weight.cuh"

namespace dwconv::cuda {

template <class T>
struct BackwardParameters {
  const T* input;
  const T* weight;
  const T* grad_output;
  T* grad_input;
  int rows, columns, pitch;  // of every plane; bytes from row to row
  BandItems items;
  ChannelSums<T> to;
};

// The rows of the input that a thread has, and those of its gradient.
template <class T, int K, int V>
struct InputRows {
  using A = Accumulator<T>;
  using Row = SourceRow<T, K, 1, V>;
  static constexpr int kPitch = kWeightsPitch<K>;

  const T* input;  // row 0 of the band
  T* grad_input;
  int pitch;
  const A* weights;
  A (&sums)[K * K + 1];
  A x[K][V], gradient[K][V];

  __device__ __forceinline__ void begin(int place, int row) {
    Vector<T, V> vector = read<V>(row_at(input, row, pitch));
#pragma unroll
    for (int v = 0; v < V; ++v) x[place][v] = widen(vector[v]), gradient[place][v] = A(0);
  }
  __device__ __forceinline__ void meet(int place, int kh, Row& g, const typename Row::Columns& columns) {
    A taps[kPitch];
    if constexpr (K == 3) {
#pragma unroll
      for (int i = 0; i < K; ++i) taps[i] = weights[kh * kPitch + i];
    } else {
      load_shared(weights + kh * kPitch, taps);
    }
    for_each_tap<T, K, 1, V>(g, columns, [&](int v, int kw, A value) {
      gradient[place][v] = multiply_add(value, taps[kw], gradient[place][v]);
      sums[kh * K + kw] = multiply_add(value, x[place][v], sums[kh * K + kw]);
    });
    if (kh == K / 2) {
#pragma unroll
      for (int v = 0; v < V; ++v) sums[K * K] += g[v + K / 2];
    }
  }
  __device__ __forceinline__ void end(int place, int row) {
    Vector<T, V> vector;
#pragma unroll
    for (int v = 0; v < V; ++v) vector[v] = narrow<T>(gradient[place][v]);
    write<V>(row_at(grad_input, row, pitch), vector);
  }
  __device__ __forceinline__ void shift() {
#pragma unroll
    for (int i = 0; i < K - 1; ++i) {
#pragma unroll
      for (int v = 0; v < V; ++v) x[i][v] = x[i + 1][v], gradient[i][v] = gradient[i + 1][v];
    }
  }
};

// Blocks that a multiprocessor must be able to hold: the most of which none spills.
template <int K>
constexpr int kBackwardBlocks = K == 3 ? 6 : 4;

template <class T, int K, int V>
__global__ void __launch_bounds__(128, kBackwardBlocks<K>) nchw_backward(BackwardParameters<T> p) {
  using A = Accumulator<T>;
  using Rows = InputRows<T, K, V>;
  using Walk = BandWalk<T, K, 1, V>;
  A* const weights = copy_weights<T, K>(p.weight, int(blockIdx.x), p.to.channels, true);
  A sums[K * K + 1];
#pragma unroll
  for (int i = 0; i < K * K + 1; ++i) sums[i] = A(0);
  // Counted for the block and not for the thread, since 5x5 in float32 has no register for it.
  for (int64_t items = int64_t(blockIdx.y) * 128; items + threadIdx.x < p.items.count;
       items += int64_t(gridDim.y) * 128) {
    const auto [image, first, strip] = p.items.place(items + threadIdx.x);
    const int column = strip * V;
    const int64_t plane = (image * p.to.channels + blockIdx.x) * (int64_t(p.rows) * p.columns);
    const int64_t own = plane + (first * p.columns + column);
    Rows rows{opaque(p.input + own), opaque(p.grad_input + own), p.pitch, weights, sums, {}, {}};
    Walk walk{Walk::Row::columns(column, K / 2, p.columns), opaque(p.grad_output + plane + (column - K / 2)),
              first - K / 2, p.rows, p.pitch};
    walk.down(rows, p.rows - first < p.items.band_rows ? p.rows - first : p.items.band_rows);
  }
  add_up<K, true>(p.to, sums, weights + K * Rows::kPitch);
}

template <class T, int K>
struct NchwBackward {
  using GradWeight = NchwGradWeight<T, K, 1>;
  static constexpr auto workspace_bytes = GradWeight::workspace_bytes;

  static const char* supports(const Shape& s) {
    if (const char* reason = GradWeight::supports(s)) return reason;
    const bool same = s.OH == s.H && s.OW == s.W && s.pad_top == K / 2 && s.pad_left == K / 2;
    return same ? nullptr : "the output is not as large as the input, with as much padding on all sides";
  }

  template <int V>
  static const char* launch_columns(BackwardParameters<T>& p, int64_t images, int64_t chunks, Stream stream) {
    p.items = BandItems(images, p.rows, p.columns, V);
    const dim3 grid(unsigned(p.to.channels), unsigned(chunks));
    const size_t shared_bytes = weights_bytes<T, K>(1) + kSumsBytes<T, K>;
    return cuda::launch(nchw_backward<T, K, V>, grid, dim3(128), shared_bytes, stream, p);
  }

  static const char* launch(const Shape& s, const Buffers& b, Stream stream) {
    if (s.C == 0) return nullptr;
    const int64_t chunks = GradWeight::chunks(s);
    BackwardParameters<T> p;
    p.input = static_cast<const T*>(b.input);
    p.weight = static_cast<const T*>(b.weight);
    p.grad_output = static_cast<const T*>(b.grad_output);
    p.grad_input = static_cast<T*>(b.result);
    p.rows = int(s.H), p.columns = int(s.W), p.pitch = p.columns * int(sizeof(T));
    set_sums<T>(p.to, b.grad_weight, b, chunks);
    p.to.channels = int(s.C);
    constexpr int kVector = 4;  // as for grad_weight
    const bool vectors = p.columns > 0 &&
                         SourceRow<T, K, 1, kVector>::takes(p.grad_output, p.columns, p.columns, K / 2) &&
                         in_vectors<kVector>(p.input, p.columns) && in_vectors<kVector>(p.grad_input, p.columns);
    const char* error =
        vectors ? launch_columns<kVector>(p, s.N, chunks, stream) : launch_columns<1>(p, s.N, chunks, stream);
    return add_up_chunks<T>(error, p.to, s, chunks, stream);
  }
};

}  // namespace dwconv::cuda
