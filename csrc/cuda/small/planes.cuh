// forward and grad_input at stride 1 (forward with the kernel rotated) for contiguous tensors of float32, bfloat16 and
// float16 whose planes are 7x7 or 14x14 before and after, forward at stride 2 from 14x14 to 7x7, k x k kernels, dilation 1,
// multiplier 1.
//
// Method: a block is a warp and takes a run of whole planes, which is whole vectors though no row is. It copies the run to
// shared memory by 16-byte accesses. A thread owns results of 7x7, or the upper or lower half of 14x14. It reads each source
// row once, from the border inwards, and adds it to the rows of sums that need it; a row of results replaces sources that
// nobody needs any more, and the run leaves by 16-byte accesses. The lower half is the upper one upside down, with
// rows of taps in reverse order, so that the code knows where the padding is: nothing of it is computed or asked for.
// Planes of 49 words, and vectors of one half that lie between those of the other, keep lanes out of each other's banks.
// Bound: one read of each source and one write of each result; k^2 multiply-adds less those of the padding.
#pragma once
#include "../device/activate.cuh"
#include "../device/address.cuh"
#include "../device/divisor.cuh"
#include "../device/vector.cuh"
#include "../parameters.h"
#include "../refusal.h"
#include "copy_run.cuh"
#include "planes_of_block.h"

namespace dwconv::cuda {

template <class T>
struct PlanesParameters : Operands<T> {
  int64_t planes;
  int channels;
  bool vectors, rotated;
  Divisor by_channels;
  Activation activation;
};

// From planes of S*P x S*P to P x P.
template <int K, int S, int P>
struct PlanesTuning {
  static constexpr int kThreads = 32;
  static constexpr int kHalves = P > 7 ? 2 : 1;
  static constexpr int kRows = P / kHalves, kPlanes = kThreads / kHalves;  // of a thread; of a block
  static_assert(kPlanes == planes_of_block(P));
  static constexpr int kSide = S * P, kSources = kSide * kSide, kResults = P * P;
  // Elements of an access of shared memory. At stride 2 two rows are whole vectors.
  static constexpr int kSourceVector = S == 2 ? 4 : P % 2 == 0 ? 2 : 1, kResultVector = P % 2 == 0 ? 2 : 1;
  // The weights stay in registers where they and the sums find room in 128. Else a thread may have 168.
  static constexpr bool kKept = K < 7 || kSide < 14;
  // For nvcc. At stride 1 it keeps to 128 by itself, and spills when it is told to.
  static constexpr int kBlocks = S == 2 ? 16 : kKept ? 1 : 12;
};

// The k x k weights of a run of `count` channels, which follow each other but that the first comes after the last.
template <class T, int kTaps, int kPlanes, int kThreads>
__device__ __forceinline__ void copy_weights_of_run(const PlanesParameters<T>& p, int channel, int count, T* to) {
  const T* const from = p.weight + channel * kTaps;
  if (count == kPlanes && channel + kPlanes <= p.channels && begins_at_vector(from)) {
    copy_full_run<kPlanes * kTaps, kThreads>(to, from, int(threadIdx.x), true);
  } else {
    const int before_first = (p.channels - channel) * kTaps;
#pragma unroll 1
    for (int i = int(threadIdx.x); i < count * kTaps; i += kThreads) {
      to[i] = __ldg(i < before_first ? from + i : p.weight + (i - before_first));
    }
  }
}

// Rows of one thread, the first at the border of the plane.
template <class T, int K, int S, int P>
struct PlaneRows {
  using Tuning = PlanesTuning<K, S, P>;
  static constexpr int kRows = Tuning::kRows, kHalo = K / 2, kSide = Tuning::kSide;
  // It reads S rows of sources at a time. Those of the other half come last.
  static constexpr int kSteps = kRows + (Tuning::kHalves > 1 ? kHalo : 0);
  // Rows of results that replace sources which other threads read too.
  static constexpr int kShared = S > 1 ? kRows : Tuning::kHalves > 1 ? kHalo : 0;

  const T* sources;  // the first row
  T* results;
  int source_pitch, result_pitch;
  float acc[kRows][P];

  __device__ __forceinline__ void store(int row, Activation activation) {
    constexpr int V = Tuning::kResultVector;
    activate<true>(acc[row], activation);
#pragma unroll
    for (int column = 0; column < P; column += V) {
      Vector<T, V> out;
#pragma unroll
      for (int v = 0; v < V; ++v) out[v] = narrow<T>(acc[row][column + v]);
      *aligned<typename Vector<T, V>::Word>(results + row * result_pitch + column) = out.words[0];
    }
  }

  // A row of taps, in memory's order or reversed. To choose among numbers is an instruction each, among addresses several.
  static __device__ __forceinline__ void load_weights(const T* taps, bool rotated, float (&w)[K]) {
    float in_order[K];
#pragma unroll
    for (int kw = 0; kw < K; ++kw) in_order[kw] = widen(taps[kw]);
#pragma unroll
    for (int kw = 0; kw < K; ++kw) w[kw] = rotated ? in_order[K - 1 - kw] : in_order[kw];
  }

  // All results, and those stored which no source is needed in the place of.
  __device__ __forceinline__ void compute(const T* taps, int taps_pitch, bool rotated, float bias,
                                          Activation activation) {
    float w[Tuning::kKept ? K : 1][K];
    if constexpr (Tuning::kKept) {
#pragma unroll
      for (int kh = 0; kh < K; ++kh) load_weights(taps + opaque(kh * taps_pitch), rotated, w[kh]);
    }
#pragma unroll
    for (int row = 0; row < kRows; ++row) {
#pragma unroll
      for (int column = 0; column < P; ++column) acc[row][column] = bias;
    }
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      constexpr int V = Tuning::kSourceVector;
      float x[S * kSide];
#pragma unroll
      for (int i = 0; i < S * kSide; i += V) {
        Vector<T, V> in;
        in.words[0] = *aligned<const typename Vector<T, V>::Word>(sources + step * S * source_pitch + i);
#pragma unroll
        for (int v = 0; v < V; ++v) x[i + v] = widen(in[v]);
      }
#pragma unroll
      for (int i = 0; i < S * K; ++i) {
        const int r = i / K, kh = i % K, row_by_stride = step * S + r + kHalo - kh;
        if (row_by_stride < 0 || row_by_stride % S != 0 || row_by_stride >= kRows * S) continue;
        float (&row_of_taps)[K] = w[Tuning::kKept ? kh : 0];
        if constexpr (!Tuning::kKept) {
          compiler_fence();
          load_weights(taps + opaque(kh * taps_pitch), rotated, row_of_taps);
        }
#pragma unroll
        for (int kw = 0; kw < K; ++kw) {
#pragma unroll
          for (int column = 0; column < P; ++column) {
            float& sum = acc[row_by_stride / S][column];
            const int at = column * S + kw - kHalo;
            if (at >= 0 && at < kSide) sum = multiply_add(x[r * kSide + at], row_of_taps[kw], sum);
          }
        }
      }
#pragma unroll
      for (int row = 0; row < kRows - kShared; ++row) {
        const int last = row + kHalo < kSteps ? row + kHalo : kSteps - 1;
        if (step == last) store(row, activation);
      }
    }
  }
};

template <class T, int K, int S, int P>
__global__ void __launch_bounds__(PlanesTuning<K, S, P>::kThreads, PlanesTuning<K, S, P>::kBlocks)
    nchw_planes(PlanesParameters<T> p) {
  using Tuning = PlanesTuning<K, S, P>;
  constexpr int kPlanes = Tuning::kPlanes, kSources = Tuning::kSources, kResults = Tuning::kResults;
  constexpr int kSide = Tuning::kSide, kTaps = K * K, kThreads = Tuning::kThreads;
  DWCONV_SHARED_MEMORY(T, pixels);
  T* const weights = pixels + kPlanes * kSources;
  const int thread = int(threadIdx.x), own = thread / Tuning::kHalves;
  const bool lower = thread % Tuning::kHalves != 0;
  const int64_t first = int64_t(blockIdx.x) * kPlanes, left = p.planes - first;
  const int count = left < kPlanes ? int(left) : kPlanes;
  const bool full = count == kPlanes && p.vectors;

  const T* const source = p.source + first * kSources;
  if (full) {
    copy_full_run<kPlanes * kSources, kThreads>(pixels, source, thread, true);
  } else {
    copy_run(pixels, source, count * kSources, p.vectors, thread, kThreads, true);
  }
  const int channel = int(first - p.by_channels.divide(first) * p.channels);
  copy_weights_of_run<T, kTaps, kPlanes, kThreads>(p, channel, count, weights);
  async_commit();
  const int own_channel = channel + own - (channel + own >= p.channels ? p.channels : 0);
  const float bias = p.bias && own < count ? widen(__ldg(p.bias + own_channel)) : 0.0f;
  async_wait<0>();
  __syncthreads();

  PlaneRows<T, K, S, P> rows;
  rows.sources = pixels + own * kSources + (lower ? (kSide - 1) * kSide : 0);
  rows.results = pixels + own * kResults + (lower ? (P - 1) * P : 0);
  rows.source_pitch = lower ? -kSide : kSide, rows.result_pitch = lower ? -P : P;
  if (own < count) {
    const bool last_row_first = lower != p.rotated;
    const T* const taps = weights + own * kTaps + (last_row_first ? (K - 1) * K : 0);
    rows.compute(taps, last_row_first ? -K : K, p.rotated, bias, p.activation);
  }
  if constexpr (rows.kShared > 0) {
    __syncthreads();
    if (own < count) {
#pragma unroll
      for (int row = rows.kRows - rows.kShared; row < rows.kRows; ++row) rows.store(row, p.activation);
    }
  }
  __syncthreads();

  T* const result = p.result + first * kResults;
  if (full) {
    copy_full_run<kPlanes * kResults, kThreads>(result, pixels, thread, false);
  } else {
    copy_run(result, pixels, count * kResults, p.vectors, thread, kThreads, false);
  }
}

template <class T, int K, int S, Operation operation>
struct NchwPlanes {
  static constexpr bool transposed = operation == Operation::grad_input;
  static_assert(operation == Operation::forward || (transposed && S == 1));
  static constexpr bool kShortActivationsOnly = true;

  static const char* supports(const Shape& s) {
    if (const char* refusal = unit_refusal(s, K, S)) return refusal;
    if ((s.OH != 7 && s.OH * S != 14) || s.OW != s.OH) return "the planes are not 7x7 or 14x14";
    if (s.H != s.OH * S || s.W != s.OW * S || s.pad_top != K / 2 || s.pad_left != K / 2) {
      return "the input is not as large as the output times the stride, with half of the kernel as padding";
    }
    if (s.C < planes_of_block(s.OH) || s.C >= (1 << 25))
      return "the channels of a run of planes must follow each other once";
    if (s.N > kMaxGridX / s.C) return "there are too many planes";
    return nullptr;
  }

  template <int P>
  static const char* launch_planes(const PlanesParameters<T>& p, Stream stream) {
    using Tuning = PlanesTuning<K, S, P>;
    const size_t shared_bytes = size_t(Tuning::kPlanes) * (Tuning::kSources + K * K) * sizeof(T);
    const dim3 grid(unsigned(ceil_div(p.planes, Tuning::kPlanes)));
    return cuda::launch(nchw_planes<T, K, S, P>, grid, dim3(Tuning::kThreads), shared_bytes, stream, p);
  }

  static const char* launch(const Shape& s, const Buffers& b, Stream stream) {
    PlanesParameters<T> p;
    set_operands<T>(p, transposed, b);
    p.planes = s.N * s.C;
    p.channels = int(s.C);
    p.vectors = begins_at_vector(p.source) && begins_at_vector(p.result);
    p.rotated = transposed;
    p.by_channels = Divisor(s.C);
    if (p.planes == 0) return nullptr;
    if constexpr (S == 1) {
      if (s.OH == 14) return launch_planes<14>(p, stream);
    }
    return launch_planes<7>(p, stream);
  }
};

}  // namespace dwconv::cuda
