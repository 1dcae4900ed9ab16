// forward at stride 1 and 2, and grad_input at stride 1 (forward with the kernel rotated and the padding mirrored), for
// contiguous tensors of float32, bfloat16 and float16, k x k kernels, dilation 1, multiplier 1.
//
// Method: a thread owns V neighbouring columns of the result and streams down kRows of its rows, unrolled: each source row
// is read once, as one vector and its halos, and serves the k rows of the result that need it while they are in
// registers. With V > 1 rows must be whole vectors and the padding k/2, so that a vector or halo is inside or outside as
// a whole; V = 1 takes the rest, a predicate for each column. Padding is skipped, not multiplied: a row outside is
// branched over, a column outside predicated. Weights lie in shared memory as float32.
// Bound: (kRows*S + k - S) / kRows reads of each source, mostly from L1; k^2 multiply-adds.
#pragma once
#include "../device/activate.cuh"
#include "../device/address.cuh"
#include "../parameters.h"
#include "../refusal.h"
#include "grid.cuh"
#include "source_row.cuh"

namespace dwconv::cuda {

template <class T>
struct NchwStreamParameters : Operands<T> {
  int channels, source_rows, source_columns, rows, columns, pad_top, pad_left;
  unsigned source_plane, result_plane;  // elements of one
  PlaneGrid grid;
  int element_bytes;
  bool rotated;
  Activation activation;
};

// How a thread goes about its band: the least of registers that nvcc spills nothing with.
template <class T, int K, int S, int V>
struct StreamTuning {
  static constexpr int kRows = K == 3 ? 7 : K == 5 ? (V == 8 ? 3 : 7) : (V == 8 ? 3 : 4);
  // Source rows that are under way while one is used.
  static constexpr int kAhead = K == 3 && V < 8 ? 2 : 0;
  // Rows of the result between two points which loads of weights do not cross: nvcc has all of them under way, and spills.
  static constexpr int kTogether = K == 7 && V < 8 ? 2 : kRows;
  // Of a block: as many as planes of 56x56 fill whole warps with.
  static constexpr int kThreads = K == 7 ? 448 : K == 5 && V == 8 ? 512 : 256;
  // Of a multiprocessor: 72 registers for 7x7, else 64. bfloat16 on 7.5, which has no conversion to it, takes 96.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
  static constexpr int kResident = __is_same(T, bf16) ? 640 : K == 7 ? 896 : 1024;
#else
  static constexpr int kResident = K == 7 ? 896 : 1024;
#endif
  static constexpr int kBlocks = kResident / kThreads;
};

template <class T, int K, int S, int V>
__global__ void __launch_bounds__(StreamTuning<T, K, S, V>::kThreads, StreamTuning<T, K, S, V>::kBlocks)
    nchw_stream(NchwStreamParameters<T> p) {
  using A = Accumulator<T>;
  using Row = SourceRow<T, K, S, V>;
  using Tuning = StreamTuning<T, K, S, V>;
  constexpr int kRows = Tuning::kRows, kPitch = kWeightsPitch<K>;
  const int channel = int(blockIdx.y * blockDim.z + threadIdx.z);
  const A bias = p.bias && channel < p.channels ? widen(__ldg(p.bias + channel)) : A(0);
  const A* const weights = copy_weights<T, K>(p.weight, channel, p.channels, p.rotated);
  const int band = p.grid.band(), strip = p.grid.strip();
  if (channel >= p.channels || band >= p.grid.bands || strip >= p.grid.strips) return;

  const int row = band * kRows, column = strip * V, source_row = row * S - p.pad_top;
  const unsigned plane = blockIdx.z * unsigned(p.channels) + unsigned(channel);  // of the launch: both are below 2^16
  const auto columns = Row::columns(column, p.pad_left, p.source_columns);
  const T* from = opaque(p.source + int64_t(uint64_t(plane) * p.source_plane) + int64_t(source_row) * p.source_columns +
                         (column * S - p.pad_left));
  T* to = opaque(p.result + uint64_t(plane) * p.result_plane + (row * p.columns + column));
  const auto inside = [&](int r) { return unsigned(source_row + r) < unsigned(p.source_rows); };

  constexpr int kSourceRows = (kRows - 1) * S + K;
  Row rows[Tuning::kAhead + 1];
  A w[K == 3 ? K : 1][kPitch];  // 3x3 stays in registers
  if constexpr (K == 3) {
#pragma unroll
    for (int i = 0; i < K * kPitch; ++i) w[i / kPitch][i % kPitch] = weights[i];
  }
  A acc[kRows][V];
#pragma unroll
  for (int step = 0; step < kSourceRows + Tuning::kAhead; ++step) {
    if (step < kSourceRows) {
      if (inside(step)) rows[step % (Tuning::kAhead + 1)].load(from, columns);
      from = next_row(from, p.source_columns, p.element_bytes);
    }
    const int r = step - Tuning::kAhead;
    if (r < 0) continue;
    if (r % S == 0 && r / S < kRows) {
#pragma unroll
      for (int v = 0; v < V; ++v) acc[r / S][v] = bias;
    }
#pragma unroll
    for (int first = 0; first < kRows; first += Tuning::kTogether) {
      if (first * S > r || (first + Tuning::kTogether - 1) * S + K <= r) continue;
      compiler_fence();
      if (inside(r)) {
#pragma unroll
        for (int o = first; o < first + Tuning::kTogether && o < kRows; ++o) {
          const int kh = r - o * S;
          if (kh < 0 || kh >= K) continue;
          A(&taps)[kPitch] = w[K == 3 ? kh : 0];
          if constexpr (K > 3) load_shared(weights + kh * kPitch, taps);
          for_each_tap<T, K, S, V>(rows[r % (Tuning::kAhead + 1)], columns,
                                   [&](int v, int kw, A x) { acc[o][v] = multiply_add(x, taps[kw], acc[o][v]); });
        }
      }
    }
    if (r >= K - 1 && (r - K + 1) % S == 0) {
      const int o = (r - K + 1) / S;
      if (row + o < p.rows) {
        activate<true>(acc[o], p.activation);
        Vector<T, V> out;
#pragma unroll
        for (int v = 0; v < V; ++v) out[v] = narrow<T>(acc[o][v]);
        write<V>(to, out);
      }
      to = next_row(to, p.columns, p.element_bytes);
    }
  }
}

template <class T, int K, int S, Operation operation>
struct NchwStream {
  static constexpr bool transposed = operation == Operation::grad_input;
  static_assert(operation == Operation::forward || (transposed && S == 1));
  static constexpr bool kShortActivationsOnly = true;

  static const char* supports(const Shape& s) {
    if (const char* refusal = unit_refusal(s, K, S)) return refusal;
    if (const char* refusal = plane_refusal(s, S)) return refusal;
    if (s.C > kMaxGridYZ) return "there are too many channels";
    return nullptr;
  }

  template <int V>
  static const char* launch_columns(NchwStreamParameters<T>& p, int64_t images, Stream stream) {
    using Tuning = StreamTuning<T, K, S, V>;
    const PlaneLaunch shares(ceil_div(p.rows, Tuning::kRows), p.columns / V, p.channels, Tuning::kThreads);
    p.grid = shares.places;
    return launch_images(nchw_stream<T, K, S, V>, shares, weights_bytes<T, K>(shares.block.z), images, stream, p);
  }

  // Whether a thread may have V columns: what it reads and what it writes are vectors.
  template <int V>
  static bool takes_columns(const NchwStreamParameters<T>& p) {
    return SourceRow<T, K, S, V>::takes(p.source, p.source_columns, p.columns, p.pad_left) &&
           in_vectors<V>(p.result, p.columns);
  }

  static const char* launch(const Shape& s, const Buffers& b, Stream stream) {
    NchwStreamParameters<T> p;
    set_planes<T>(p, transposed, s, b);
    if (s.N == 0 || p.channels == 0 || p.rows == 0 || p.columns == 0) return nullptr;
    // The widest strips that fill 16 bytes of the result, or half of them for rows that have no whole ones.
    // Eight columns at stride 2 would spill.
    constexpr int kWide = K > 3 && S == 2 ? 4 : 16 / int(sizeof(T)), kHalf = kWide / 2;
    constexpr int kLeftVector = round_up_to_power(K / 2);
    if constexpr (kWide * S >= kLeftVector) {
      if (takes_columns<kWide>(p)) return launch_columns<kWide>(p, s.N, stream);
    }
    if constexpr (S == 1 && kHalf > 1 && kHalf >= kLeftVector) {
      if (takes_columns<kHalf>(p)) return launch_columns<kHalf>(p, s.N, stream);
    }
    return launch_columns<1>(p, s.N, stream);
  }
};

}  // namespace dwconv::cuda
