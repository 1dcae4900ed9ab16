// grad_weight and the bias gradient for contiguous tensors of float32, bfloat16 and float16, k x k kernels at stride 1 and
// 2, dilation 1, multiplier 1.
//
// Method: a block of 128 threads owns a channel and a split of its images. A thread owns V neighbouring columns of the
// gradient and a strip of its rows, and walks down the input under them: each input row is read once, as one vector and
// its halos, and meets the k rows of the gradient above it, which roll through registers (nchw_strips.cuh). The k^2 sums stay in registers
// until the end; then lanes are added by shuffles in a fixed tree, warps in order, and splits by a second launch, in
// order. Padding is skipped, not multiplied. V > 1 asks the same of rows and padding as in nchw_stream.cuh.
// Bound: k^2 multiply-adds; one read of each input and gradient, and the halos.
#pragma once
#include "grad_weight_any.cuh"
#include "nchw_stream.cuh"
#include "nchw_strips.cuh"

namespace dwconv::cuda {

template <class T>
struct StreamGradWeightProblem {
  const T* input;
  const T* grad_output;
  int rows, columns, input_rows, input_columns, pad_top, pad_left;
  int input_pitch, grad_pitch;  // bytes from row to row
  StripJobs jobs;
  ChannelSums<T> to;
};

// The rows of the gradient that a thread has.
template <class T, int K, int S, int V>
struct GradRows {
  using A = Accumulator<T>;
  using Row = SourceRow<T, K, S, V>;
  static constexpr int kKept = StripWalk<T, K, S, V>::kKept;

  const T* grad;  // row 0 of the strip
  int pitch;
  A (&sums)[K * K + 1];
  A kept[kKept][V];

  __device__ __forceinline__ void begin(int place, int row) {
    Pack<T, V> pack = read<V>(row_at(grad, row, pitch));
#pragma unroll
    for (int v = 0; v < V; ++v) {
      kept[place][v] = widen(pack[v]);
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
__device__ __forceinline__ void grad_weight_strip(const StreamGradWeightProblem<T>& p, int64_t job,
                                                  Accumulator<T> (&sums)[K * K + 1]) {
  using Walk = StripWalk<T, K, S, V>;
  const auto [image, first, pack] = p.jobs.place(job);
  const int column = pack * V;
  const int64_t plane = image * p.to.channels + blockIdx.x;
  GradRows<T, K, S, V> rows{
      opaque(p.grad_output + plane * p.rows * p.columns + (first * p.columns + column)), p.grad_pitch, sums, {}};
  Walk walk{Walk::Row::columns(column, p.pad_left, p.input_columns),
            opaque(p.input + plane * p.input_rows * p.input_columns + (column * S - p.pad_left)), first * S - p.pad_top,
            p.input_rows, p.input_pitch};
  walk.down(rows, p.rows - first < p.jobs.strip_rows ? p.rows - first : p.jobs.strip_rows);
}

// Blocks that a multiprocessor must be able to hold: the most of which none spills.
template <int K, int S>
constexpr int kGradWeightBlocks = K == 7   ? (S == 1 ? 3 : 4)
                                  : K == 5 ? 5
                                           : 8;

template <class T, int K, int S, int V>
__global__ void __launch_bounds__(128, kGradWeightBlocks<K, S>) nchw_stream_grad_weight(StreamGradWeightProblem<T> p) {
  using A = Accumulator<T>;
  DWCONV_SHARED_MEMORY(A, shared);
  A sums[K * K + 1];
#pragma unroll
  for (int i = 0; i < K * K + 1; ++i) sums[i] = A(0);
  for (int64_t job = int64_t(blockIdx.y) * 128 + threadIdx.x; job < p.jobs.count; job += int64_t(gridDim.y) * 128) {
    grad_weight_strip<T, K, S, V>(p, job, sums);
  }
  add_up<K, false>(p.to, sums, shared);
}

template <class T, int K, int S>
struct NchwStreamGradWeight {
  static const char* supports(const Shape& s) { return NchwStream<T, K, S, Operation::forward>::supports(s); }

  // All by the shape alone, with one column a job, so that neither the device nor an address changes a split.
  static int64_t splits(const Shape& s) {
    constexpr int64_t kBlocks = 1024, kTermsOfAThread = 4096;
    const int64_t terms = s.N * s.OH * s.OW;
    const int64_t wanted =
        std::max(ceil_div(kBlocks, std::max<int64_t>(s.C, 1)), ceil_div(terms, 128 * kTermsOfAThread));
    return std::max<int64_t>(1, std::min({wanted, ceil_div(terms, 128 * 64), kMaxGridYZ}));
  }

  static int64_t workspace_bytes(const Shape& s) {
    const int64_t count = splits(s);
    return count == 1 ? 0 : count * s.C * (K * K + 1) * int64_t(sizeof(Accumulator<T>));
  }

  template <int V>
  static const char* launch_packs(StreamGradWeightProblem<T>& p, int64_t images, int64_t splits, Stream stream) {
    p.jobs = StripJobs(images, p.rows, p.columns, V);
    const dim3 grid(unsigned(p.to.channels), unsigned(splits));
    return cuda::launch(nchw_stream_grad_weight<T, K, S, V>, grid, dim3(128), kSumsBytes<T, K>, stream, p);
  }

  static const char* launch(const Shape& s, const Buffers& b, Stream stream) {
    if (s.C == 0) return nullptr;
    const int64_t count = splits(s);
    StreamGradWeightProblem<T> p;
    p.input = static_cast<const T*>(b.input);
    p.grad_output = static_cast<const T*>(b.grad_output);
    p.to = channel_sums<T>(s, b, count);
    p.rows = int(s.OH), p.columns = int(s.OW), p.input_rows = int(s.H), p.input_columns = int(s.W);
    p.pad_top = int(s.pad_top), p.pad_left = int(s.pad_left);
    p.input_pitch = p.input_columns * int(sizeof(T)), p.grad_pitch = p.columns * int(sizeof(T));
    // Four columns a thread whatever the dtype: more would not leave registers for the sums.
    constexpr int kPack = 4;
    const bool packs = p.columns > 0 &&
                       SourceRow<T, K, S, kPack>::takes(p.input, p.input_columns, p.columns, p.pad_left) &&
                       in_packs<kPack>(p.grad_output, p.columns);
    const char* error = packs ? launch_packs<kPack>(p, s.N, count, stream) : launch_packs<1>(p, s.N, count, stream);
    if (error || !p.to.partials) return error;
    return launch_add_splits<T>(p.to.partials, s, b, count, stream);
  }
};

}  // namespace dwconv::cuda
