// forward and grad_input at stride 1 (forward with the kernel rotated) for contiguous tensors of float32, bfloat16 and
// float16 whose planes are 7x7 or 14x14 before and after, k x k kernels, dilation 1, multiplier 1.
//
// Method: a block is a warp and takes a run of whole planes, which is whole vectors though no row is. It copies the run to
// shared memory by 16-byte accesses. A thread owns a plane of 7x7, or the upper or lower half of one of 14x14. It reads each
// source row once, from the border inwards, and adds it to the rows of sums that need it; a row of results replaces sources
// that nobody needs any more, and the run leaves by 16-byte accesses. The lower half is the upper one upside down, with
// rows of taps in reverse order, so that the code knows where the padding is: nothing of it is computed or asked for.
// Planes of 49 words, and vectors of one half that lie between those of the other, keep lanes out of each other's banks.
// Bound: one read of each source and one write of each result; k^2 multiply-adds less those of the padding.
#pragma once
#include "activate.cuh"
#include "divisor.cuh"
#include "gather_any.cuh"
#include "nchw_run.cuh"
#include "pack.cuh"
#include "refusal.h"
#include "source_row.cuh"

namespace dwconv::cuda {

template <class T>
struct WholeProblem {
  const T* source;
  const T* weight;
  const T* bias;
  T* result;
  int64_t planes;
  int channels;
  bool aligned, rotated;
  Divisor by_channels;
  Activation activation;
};

template <int K, int P>
struct WholePlan {
  static constexpr int kThreads = 32;
  static constexpr int kHalves = P > 7 ? 2 : 1;
  static constexpr int kRows = P / kHalves, kPlanes = kThreads / kHalves;  // of a thread; of a block
  static constexpr int kVector = P % 2 == 0 ? 2 : 1;                       // elements of an access of shared memory
  // The weights stay in registers where they and the sums find room in 128, which nvcc keeps to by itself and spills when
  // it is told to. Else a thread may have 168.
  static constexpr bool kKept = K < 7 || P < 14;
  static constexpr int kBlocks = kKept ? 1 : 12;
};

// The k x k weights of a run of `count` channels, which follow each other but that the first comes after the last.
template <class T, int kTaps, int kPlanes, int kThreads>
__device__ __forceinline__ void stage_weights(const WholeProblem<T>& p, int channel, int count, T* to) {
  const T* const from = p.weight + channel * kTaps;
  if (count == kPlanes && channel + kPlanes <= p.channels && reinterpret_cast<uintptr_t>(from) % 16 == 0) {
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
template <class T, int K, int P>
struct WholeRows {
  using Plan = WholePlan<K, P>;
  static constexpr int kRows = Plan::kRows, kHalo = K / 2, V = Plan::kVector;
  // Of the rows of sources that it reads, those of the other half come last.
  static constexpr int kSourceRows = kRows + (Plan::kHalves > 1 ? kHalo : 0);
  // Rows of results that replace sources which the other half reads too.
  static constexpr int kShared = Plan::kHalves > 1 ? kHalo : 0;

  T* first;  // row of pixels
  int pitch;
  float acc[kRows][P];

  __device__ __forceinline__ void store(int row, Activation activation) {
    activate<true>(acc[row], activation);
#pragma unroll
    for (int column = 0; column < P; column += V) {
      Pack<T, V> out;
#pragma unroll
      for (int v = 0; v < V; ++v) out[v] = narrow<T>(acc[row][column + v]);
      *reinterpret_cast<typename Pack<T, V>::Word*>(first + row * pitch + column) = out.words[0];
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
    float w[Plan::kKept ? K : 1][K];
    if constexpr (Plan::kKept) {
#pragma unroll
      for (int kh = 0; kh < K; ++kh) load_weights(taps + opaque(kh * taps_pitch), rotated, w[kh]);
    }
#pragma unroll
    for (int row = 0; row < kRows; ++row) {
#pragma unroll
      for (int column = 0; column < P; ++column) acc[row][column] = bias;
    }
#pragma unroll
    for (int step = 0; step < kSourceRows; ++step) {
      float x[P];
#pragma unroll
      for (int column = 0; column < P; column += V) {
        Pack<T, V> in;
        in.words[0] = *reinterpret_cast<const typename Pack<T, V>::Word*>(first + step * pitch + column);
#pragma unroll
        for (int v = 0; v < V; ++v) x[column + v] = widen(in[v]);
      }
#pragma unroll
      for (int kh = 0; kh < K; ++kh) {
        const int row = step + kHalo - kh;
        if (row < 0 || row >= kRows) continue;
        float (&row_of_taps)[K] = w[Plan::kKept ? kh : 0];
        if constexpr (!Plan::kKept)
          compiler_fence(), load_weights(taps + opaque(kh * taps_pitch), rotated, row_of_taps);
#pragma unroll
        for (int kw = 0; kw < K; ++kw) {
#pragma unroll
          for (int column = 0; column < P; ++column) {
            const int at = column + kw - kHalo;
            if (at >= 0 && at < P) acc[row][column] = multiply_add(x[at], row_of_taps[kw], acc[row][column]);
          }
        }
      }
#pragma unroll
      for (int row = 0; row < kRows - kShared; ++row) {
        const int last = row + kHalo < kSourceRows ? row + kHalo : kSourceRows - 1;
        if (step == last) store(row, activation);
      }
    }
  }
};

template <class T, int K, int P>
__global__ void __launch_bounds__(WholePlan<K, P>::kThreads, WholePlan<K, P>::kBlocks) nchw_whole(WholeProblem<T> p) {
  using Plan = WholePlan<K, P>;
  constexpr int kPlanes = Plan::kPlanes, kPlane = P * P, kTaps = K * K, kThreads = Plan::kThreads;
  DWCONV_SHARED_MEMORY(T, pixels);
  T* const weights = pixels + kPlanes * kPlane;
  const int thread = int(threadIdx.x), own = thread / Plan::kHalves;
  const bool lower = thread % Plan::kHalves != 0;
  const int64_t first = int64_t(blockIdx.x) * kPlanes, left = p.planes - first;
  const int count = left < kPlanes ? int(left) : kPlanes;
  const bool full = count == kPlanes && p.aligned;

  const T* const source = p.source + first * kPlane;
  if (full) {
    copy_full_run<kPlanes * kPlane, kThreads>(pixels, source, thread, true);
  } else {
    copy_run(pixels, source, count * kPlane, p.aligned, thread, kThreads, true);
  }
  const int channel = int(first - p.by_channels.divide(first) * p.channels);
  stage_weights<T, kTaps, kPlanes, kThreads>(p, channel, count, weights);
  async_commit();
  const int own_channel = channel + own - (channel + own >= p.channels ? p.channels : 0);
  const float bias = p.bias && own < count ? widen(__ldg(p.bias + own_channel)) : 0.0f;
  async_wait<0>();
  __syncthreads();

  WholeRows<T, K, P> rows;
  rows.first = pixels + own * kPlane + (lower ? (P - 1) * P : 0);
  rows.pitch = lower ? -P : P;
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

  T* const result = p.result + first * kPlane;
  if (full) {
    copy_full_run<kPlanes * kPlane, kThreads>(result, pixels, thread, false);
  } else {
    copy_run(result, pixels, count * kPlane, p.aligned, thread, kThreads, false);
  }
}

template <class T, int K, int S, Map map>
struct NchwWhole {
  static constexpr bool transposed = map == Map::grad_input;
  static_assert(S == 1 && (map == Map::forward || transposed));
  static constexpr int64_t (*workspace_bytes)(const Shape&) = nullptr;

  static const char* supports(const Shape& s) {
    if (const char* refusal = unit_refusal(s, K, S)) return refusal;
    if ((s.H != 7 && s.H != 14) || s.W != s.H) return "the planes are not 7x7 or 14x14";
    if (s.OH != s.H || s.OW != s.W || s.pad_top != K / 2 || s.pad_left != K / 2) {
      return "the output is not as large as the input, with half of the kernel as padding";
    }
    const int64_t run = s.H == 7 ? WholePlan<K, 7>::kPlanes : WholePlan<K, 14>::kPlanes;
    if (s.C < run || s.C >= (1 << 25)) return "the channels of a run of planes must follow each other once";
    if (s.N > kMaxGridX / s.C) return "there are too many planes";
    constexpr int64_t kFewestBlocks = 64;  // with fewer, a thread's many results are what a launch waits for
    if (s.N * s.C < kFewestBlocks * run) return "there are too few planes";
    return nullptr;
  }

  template <int P>
  static const char* launch_planes(const WholeProblem<T>& p, Stream stream) {
    using Plan = WholePlan<K, P>;
    const size_t shared_bytes = size_t(Plan::kPlanes) * (P * P + K * K) * sizeof(T);
    const dim3 grid(unsigned(ceil_div(p.planes, Plan::kPlanes)));
    return cuda::launch(nchw_whole<T, K, P>, grid, dim3(Plan::kThreads), shared_bytes, stream, p);
  }

  static const char* launch(const Shape& s, const Buffers& b, Stream stream) {
    if (!is_short(b.activation)) return GatherAny<T, map, Layout::nchw>::launch(s, b, stream);
    WholeProblem<T> p;
    p.source = static_cast<const T*>(transposed ? b.grad_output : b.input);
    p.weight = static_cast<const T*>(b.weight);
    p.bias = static_cast<const T*>(b.bias);
    p.result = static_cast<T*>(b.result);
    p.planes = s.N * s.C;
    p.channels = int(s.C);
    p.aligned = reinterpret_cast<uintptr_t>(p.source) % 16 == 0 && reinterpret_cast<uintptr_t>(p.result) % 16 == 0;
    p.rotated = transposed;
    p.by_channels = Divisor(s.C);
    p.activation = b.activation;
    if (p.planes == 0) return nullptr;
    return s.H == 7 ? launch_planes<7>(p, stream) : launch_planes<14>(p, stream);
  }
};

}  // namespace dwconv::cuda
