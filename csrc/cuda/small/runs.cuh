// forward at stride 1 and 2, and grad_input at stride 1, for contiguous tensors of float32, bfloat16 and float16 with many
// small planes whose rows are no whole vectors (7x7, 14x14), k x k kernels, dilation 1, multiplier 1.
//
// Method: a block takes a run of whole planes, of as many bytes as make whole vectors though no row does. It copies the run
// to shared memory by 16-byte accesses. A thread owns a column of a plane and seven rows of results, and takes the k columns
// of sources one after the other: a column of sources and one of weights in registers serve all seven. The results replace
// the sources in shared memory and leave by 16-byte accesses. Padding is zero there: see plane.cuh for NaN.
// Bound: one read of each source and one write of each result; k * (6*S + 2*k) / 7 reads of shared memory for each.
#pragma once
#include <algorithm>

#include "../device/divisor.cuh"
#include "../plane.cuh"
#include "../refusal.h"
#include "copy_run.cuh"
#include "runs_plan.h"

namespace dwconv::cuda {

constexpr int kRunThreads = 512, kZeros = 8;  // zeros: for K taps, and 16 bytes

template <class T>
struct RunsParameters : PlaneParameters<T> {
  int64_t planes, runs;
  int planes_of_run, weights_at;  // in elements of shared memory
  bool vectors;
  Divisor by_channels;
};

template <class T, int K, int S>
__global__ void __launch_bounds__(kRunThreads, 2) nchw_runs(RunsParameters<T> p) {
  DWCONV_SHARED_MEMORY(unsigned char, shared);
  T* const zeros = reinterpret_cast<T*>(shared);
  T* const pixels = zeros + kZeros;
  float* const weights = reinterpret_cast<float*>(zeros + p.weights_at);
  const int column = int(threadIdx.x), first_row = int(threadIdx.y) * kRunRows, own = int(threadIdx.z);
  const int thread = int((threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x);
  const int threads = int(blockDim.x * blockDim.y * blockDim.z);
  const int sources = p.source_rows * p.source_columns, results = p.rows * p.columns;

  if (thread < kZeros) zeros[thread] = narrow<T>(0.0f);
  for (int64_t run = blockIdx.x; run < p.runs; run += gridDim.x) {
    const int64_t first = run * p.planes_of_run, left = p.planes - first;
    const int count = left < p.planes_of_run ? int(left) : p.planes_of_run;
    copy_run(pixels, p.source + first * sources, count * sources, p.vectors, thread, threads, true);
    async_commit();
    // The channels of the run follow each other, and the first comes after the last.
    const int channels = int(p.channels), channel = int(first - p.by_channels.divide(first) * p.channels);
    for (int i = thread; i < count * K * K; i += threads) {
      const int plane = i / (K * K), tap = i - plane * (K * K);
      const int at = channel + plane - (channel + plane >= channels ? channels : 0);
      weights[i] = widen(__ldg(p.weight + at * (K * K) + (p.rotated ? K * K - 1 - tap : tap)));
    }
    const int own_channel = channel + own - (channel + own >= channels ? channels : 0);
    const float bias = p.bias && own < count ? widen(__ldg(p.bias + own_channel)) : 0.0f;
    async_wait<0>();
    __syncthreads();

    float acc[kRunRows];
#pragma unroll
    for (int r = 0; r < kRunRows; ++r) acc[r] = bias;
    if (own < count) {
      constexpr int kSources = (kRunRows - 1) * S + K;
      const int source_row = first_row * S - p.pad_top, source_column = column * S - p.pad_left;
      const T* at[kSources];  // tap 0 of each row of sources; a row in the padding is among the zeros
#pragma unroll
      for (int i = 0; i < kSources; ++i) {
        const bool inside = unsigned(source_row + i) < unsigned(p.source_rows);
        at[i] = inside ? pixels + own * sources + (source_row + i) * p.source_columns + source_column : zeros;
      }
      // Columns in the padding: what lies beside the row, times zero.
#pragma unroll
      for (int kw = 0; kw < K; ++kw) {
        const float inside = unsigned(source_column + kw) < unsigned(p.source_columns) ? 1.0f : 0.0f;
        float x[kSources];
#pragma unroll
        for (int i = 0; i < kSources; ++i) x[i] = widen(at[i][kw]);
#pragma unroll
        for (int kh = 0; kh < K; ++kh) {
          const float w = inside * weights[own * (K * K) + kh * K + kw];
#pragma unroll
          for (int r = 0; r < kRunRows; ++r) acc[r] = multiply_add(x[r * S + kh], w, acc[r]);
        }
      }
    }
    float any = 0.0f;  // NaN if a result is
#pragma unroll
    for (int r = 0; r < kRunRows; ++r) any += acc[r];
    activate<true>(acc, p.activation);
    __syncthreads();
    if (own < count) {
      T* to = pixels + own * results + first_row * p.columns + column;
      if (first_row + kRunRows <= p.rows) {
#pragma unroll
        for (int r = 0; r < kRunRows; ++r) to[r * p.columns] = narrow<T>(acc[r]);
      } else {
#pragma unroll
        for (int r = 0; r < kRunRows; ++r) {
          if (first_row + r < p.rows) to[r * p.columns] = narrow<T>(acc[r]);
        }
      }
      if (is_nan(any)) {
#pragma unroll 1
        for (int r = 0; r < kRunRows && first_row + r < p.rows; ++r) {
          if (!is_nan(widen(to[r * p.columns]))) continue;
          float again[1] = {by_definition(p, first + own, own_channel, first_row + r, column)};
          activate<true>(again, p.activation);
          to[r * p.columns] = narrow<T>(again[0]);
        }
      }
    }
    __syncthreads();
    copy_run(p.result + first * results, pixels, count * results, p.vectors, thread, threads, false);
    __syncthreads();
  }
}

template <class T, int K, int S, Operation operation>
struct NchwRuns {
  static constexpr bool transposed = operation == Operation::grad_input;
  static_assert(operation == Operation::forward || (transposed && S == 1));
  static constexpr bool kShortActivationsOnly = true;

  static const char* supports(const Shape& s) {
    if (const char* refusal = unit_refusal(s, K, S)) return refusal;
    if (const char* refusal = plane_refusal(s, S)) return refusal;
    const int64_t columns = transposed ? s.W : s.OW, source_columns = transposed ? s.OW : s.W;
    const int64_t pad_left = transposed ? K - 1 - s.pad_left : s.pad_left;
    if (pad_left < 0 || pad_left >= K || (columns - 1) * S - pad_left >= source_columns) {
      return "a result has all its taps in the padding";
    }
    if (std::max(s.H * s.W, s.OH * s.OW) > 48 * 1024) return "the planes are not small";
    const RunsPlan plan(s, transposed, sizeof(T));
    constexpr int64_t kShared = 48 * 1024 - 2 * kZeros * int64_t(sizeof(float));
    if (plan.unit * plan.threads > kRunThreads || plan.most * plan.bytes > kShared) return "the planes are not small";
    if (s.C < plan.most || s.C >= (1 << 25)) return "the channels of a run of planes must follow each other once";
    return nullptr;
  }

  static const char* launch(const Shape& s, const Buffers& b, Stream stream) {
    RunsParameters<T> p;
    static_cast<PlaneParameters<T>&>(p) = plane_parameters<T>(transposed, s, b);
    p.planes = s.N * s.C;
    if (p.planes == 0 || p.rows == 0 || p.columns == 0) return nullptr;
    const RunsPlan plan(s, transposed, sizeof(T));
    // Runs for two blocks of each of many multiprocessors, if there are planes for that.
    constexpr int64_t kRuns = 264;
    const int64_t fair = p.planes / kRuns / plan.unit * plan.unit;
    p.planes_of_run = int(std::max(plan.least, std::min(plan.most, fair)));
    p.runs = ceil_div(p.planes, p.planes_of_run);
    p.weights_at = int(ceil_div(p.planes_of_run * std::max(s.H * s.W, s.OH * s.OW), kZeros) + 1) * kZeros;
    p.vectors = begins_at_vector(p.source) && begins_at_vector(p.result);
    p.by_channels = Divisor(p.channels);
    const size_t shared_bytes = size_t(p.weights_at) * sizeof(T) + size_t(p.planes_of_run) * K * K * sizeof(float);
    const dim3 block(unsigned(p.columns), unsigned(ceil_div(p.rows, kRunRows)), unsigned(p.planes_of_run));
    const dim3 grid(unsigned(std::min(p.runs, kMaxGridX)));
    return cuda::launch(nchw_runs<T, K, S>, grid, block, shared_bytes, stream, p);
  }
};

}  // namespace dwconv::cuda
