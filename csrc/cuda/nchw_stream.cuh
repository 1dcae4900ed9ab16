// forward at stride 1 and 2, and grad_input at stride 1 (forward with the kernel rotated and the padding mirrored), for
// contiguous tensors of float32, bfloat16 and float16, k x k kernels, dilation 1, multiplier 1.
//
// Method: a thread owns V neighbouring columns of the result and streams down kRows of its rows, unrolled: each source row
// is read once, as one vector and its halos, and serves the k rows of the result that need it while they are in
// registers. With V > 1 rows must be whole vectors and the padding k/2, so that a vector or halo is inside or outside as
// a whole; V = 1 takes the rest, a predicate for each column. Loads and multiply-adds are predicated, not branched over,
// so that the loads of several rows are under way together. Padding is skipped, not multiplied.
// Bound: (kRows*S + k - S) / kRows reads of each source, mostly from L1; k^2 multiply-adds.
#pragma once
#include <cstdlib>

#include "activate.cuh"
#include "gather_any.cuh"
#include "pack.cuh"

namespace dwconv::cuda {

template <class T>
struct StreamProblem {
  const T* source;
  const T* weight;
  const T* bias;
  T* result;
  int64_t images, channels;
  int source_rows, source_columns, rows, columns, pad_top, pad_left;
  int strips, column_packs;
  bool rotated;
  Activation activation;
};

constexpr int round_up_to_power(int n) { return n <= 1 ? n : 2 * round_up_to_power((n + 1) / 2); }

// The columns of one source row that V results need: x[i] is column first + i, where first = results' first * S - pad.
template <class T, int K, int S, int V>
struct SourceRow {
  static constexpr int kColumns = (V - 1) * S + K, kLeft = K / 2, kInner = V * S, kRight = kColumns - kLeft - kInner;
  static constexpr int kLeftPack = round_up_to_power(kLeft), kRightPack = round_up_to_power(kRight > 0 ? kRight : 0);
  static_assert(V == 1 || (kLeftPack <= kInner && kRightPack <= kInner));

  Accumulator<T> x[kColumns];

  // Column i may be used; `columns` has what of a row is inside.
  struct Columns {
    bool left, right;
    bool each[V == 1 ? kColumns : 1];
    __device__ __forceinline__ bool inside(int i) const {
      if constexpr (V == 1) return each[i];
      return i < kLeft ? left : i >= kLeft + kInner ? right : true;
    }
  };
  static __device__ __forceinline__ Columns columns(int first_result, int pad_left, int source_columns) {
    Columns c;
    if constexpr (V == 1) {
#pragma unroll
      for (int i = 0; i < kColumns; ++i)
        c.each[i] = unsigned(first_result * S - pad_left + i) < unsigned(source_columns);
    } else {
      c.left = first_result > 0;
      c.right = first_result * S + kInner < source_columns;
    }
    return c;
  }

  // `row` points to column first_result * S - pad_left.
  __device__ __forceinline__ void load(const T* row, bool row_inside, const Columns& c) {
    if constexpr (V == 1) {
#pragma unroll
      for (int i = 0; i < kColumns; ++i) x[i] = row_inside && c.each[i] ? widen(__ldg(row + i)) : Accumulator<T>(0);
    } else {
      part<kLeft, kLeftPack, 0, kLeftPack - kLeft>(row + kLeft - kLeftPack, row_inside && c.left);
      part<kInner, kInner, kLeft, 0>(row + kLeft, row_inside);
      if constexpr (kRight > 0)
        part<kRight, kRightPack, kLeft + kInner, 0>(row + kLeft + kInner, row_inside && c.right);
    }
  }

 private:
  template <int count, int pack_size, int to, int from>
  __device__ __forceinline__ void part(const T* address, bool inside) {
    if (inside) {
      Pack<T, pack_size> pack = read<pack_size>(address);
#pragma unroll
      for (int i = 0; i < count; ++i) x[to + i] = widen(pack[from + i]);
    } else {
#pragma unroll
      for (int i = 0; i < count; ++i) x[to + i] = Accumulator<T>(0);
    }
  }
};

// The weights of one channel: in registers for 3x3; for larger kernels a row at a time from shared memory, since 25 or 49
// of them in registers would leave too few threads.
template <class T, int K>
struct StreamWeights {
  using A = Accumulator<T>;
  static constexpr bool kShared = K > 3;
  static constexpr int kPitch = K > 3 ? 8 : 3;  // of a row; whole 16-byte words when shared

  A own[kShared ? 1 : K * K];
  const A* shared;

  static constexpr size_t shared_bytes(int planes) { return kShared ? size_t(planes) * K * kPitch * sizeof(A) : 0; }

  // All threads of the block must come here. The channels of the block are first_channel + threadIdx.z.
  __device__ __forceinline__ StreamWeights(const StreamProblem<T>& p, int64_t first_channel) {
    const int last = p.rotated ? K * K - 1 : 0, step = p.rotated ? -1 : 1;
    if constexpr (kShared) {
      DWCONV_SHARED_MEMORY(A, all);
      shared = all + threadIdx.z * (K * kPitch);
      if (first_channel + threadIdx.z < p.channels) {
        const T* weight = p.weight + (first_channel + threadIdx.z) * (K * K);
        for (int i = int(threadIdx.y * blockDim.x + threadIdx.x); i < K * K; i += int(blockDim.x * blockDim.y)) {
          all[threadIdx.z * (K * kPitch) + i / K * kPitch + i % K] = widen(__ldg(weight + last + i * step));
        }
      }
      __syncthreads();
    } else {
      const T* weight = p.weight + (first_channel + threadIdx.z) * (K * K);
      const bool inside = first_channel + threadIdx.z < p.channels;
#pragma unroll
      for (int i = 0; i < K * K; ++i) own[i] = inside ? widen(__ldg(weight + last + i * step)) : A(0);
    }
  }

  __device__ __forceinline__ void row(int kh, A (&w)[kPitch]) const {
    if constexpr (kShared) {
      load_shared_8(shared + kh * kPitch, w);
    } else {
#pragma unroll
      for (int i = 0; i < K; ++i) w[i] = own[kh * K + i];
    }
  }
};

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
constexpr int kBlocksOf16Bit = 6;  // seven spill on 7.5; six do on 9.0, where ptxas has more loads under way than fit
#else
constexpr int kBlocksOf16Bit = 7;
#endif

// Blocks that a multiprocessor must be able to hold: 64 to 168 registers a thread, the least that spills nothing.
template <class T, int K, int V>
constexpr int kBlocks = K == 7           ? (sizeof(T) * V == 16 ? 3 : 4)
                        : K == 5         ? (V == 8 ? 4 : 5)
                        : sizeof(T) == 2 ? kBlocksOf16Bit
                                         : 8;

template <class T, int K, int S, int V, int kRows>
__global__ void __launch_bounds__(128, kBlocks<T, K, V>) nchw_stream(StreamProblem<T> p) {
  using A = Accumulator<T>;
  using Row = SourceRow<T, K, S, V>;
  using Weights = StreamWeights<T, K>;
  const int64_t channel = int64_t(blockIdx.x) * blockDim.z + threadIdx.z;
  const Weights weights(p, int64_t(blockIdx.x) * blockDim.z);
  if (channel >= p.channels) return;
  const A bias = p.bias ? widen(__ldg(p.bias + channel)) : A(0);

  for (int64_t image = blockIdx.y; image < p.images; image += gridDim.y) {
    const int64_t plane = image * p.channels + channel;
    const T* source = p.source + plane * p.source_rows * p.source_columns;
    T* result = p.result + plane * p.rows * p.columns;
    for (int strip = int(blockIdx.z * blockDim.y + threadIdx.y); strip < p.strips;
         strip += int(gridDim.z * blockDim.y)) {
      for (int pack = int(threadIdx.x); pack < p.column_packs; pack += int(blockDim.x)) {
        const int row = strip * kRows, column = pack * V;
        const auto columns = Row::columns(column, p.pad_left, p.source_columns);
        const int source_row = row * S - p.pad_top;
        const T* from = source + (int64_t(source_row) * p.source_columns + column * S - p.pad_left);
        A acc[kRows][V];
#pragma unroll
        for (int r = 0; r < (kRows - 1) * S + K; ++r) {
          const bool inside = unsigned(source_row + r) < unsigned(p.source_rows);
          Row x;
          x.load(from, inside, columns);
          from += p.source_columns;
#pragma unroll
          for (int o = 0; o < kRows; ++o) {
            const int kh = r - o * S;
            if (kh < 0 || kh >= K) continue;
            A w[Weights::kPitch];
            weights.row(kh, w);
#pragma unroll
            for (int v = 0; v < V; ++v) {
              if (kh == 0) acc[o][v] = bias;
#pragma unroll
              for (int kw = 0; kw < K; ++kw) {
                if (inside && columns.inside(v * S + kw)) {
                  acc[o][v] = multiply_add(x.x[v * S + kw], w[kw], acc[o][v]);
                }
              }
            }
            if (kh == K - 1 && row + o < p.rows) {
              activate<true>(acc[o], p.activation);
              Pack<T, V> out;
#pragma unroll
              for (int v = 0; v < V; ++v) out[v] = narrow<T>(acc[o][v]);
              write<V>(result + (row + o) * p.columns + column, out);
            }
          }
        }
      }
    }
  }
}

template <class T, int K, int S, Map map>
struct NchwStream {
  static constexpr bool transposed = map == Map::grad_input;
  static_assert(map == Map::forward || (transposed && S == 1));
  static constexpr int64_t (*workspace_bytes)(const Shape&) = nullptr;

  static const char* supports(const Shape& s) {
    if (s.KH != K || s.KW != K) return "the kernel has another size";
    if (s.stride_h != S || s.stride_w != S) return "the stride is another";
    if (s.dilation_h != 1 || s.dilation_w != 1) return "the dilation is not 1";
    if (s.M != 1) return "the channel multiplier is not 1";
    constexpr int64_t kLargest = int64_t(1) << 30;  // of a plane, its padding and offsets included: 32-bit within it
    const int64_t height = std::max(s.H, s.OH * S) + 64, width = std::max(s.W, s.OW * S) + 64;
    if (height > kLargest / width) return "a plane is too large for 32-bit offsets";
    if (std::max(std::abs(s.pad_top), std::abs(s.pad_left)) >= kLargest) return "the padding is too large";
    return nullptr;
  }

  template <int V, int kRows>
  static const char* launch_packs(StreamProblem<T>& p, Stream stream) {
    p.column_packs = p.columns / V;
    p.strips = int(ceil_div(p.rows, kRows));
    // As many whole strips, then planes, as 128 threads hold; a plane's strips meet in one block's L1.
    const int across = std::min(p.column_packs, 128);
    const int down = std::min(p.strips, std::max(1, 128 / across));
    const int planes = int(std::min<int64_t>({p.channels, 128 / (across * down), 64}));
    const dim3 block{unsigned(across), unsigned(down), unsigned(planes)};
    const dim3 grid(unsigned(ceil_div(p.channels, planes)), unsigned(std::min(p.images, kMaxGridYZ)),
                    unsigned(std::min(ceil_div(p.strips, down), kMaxGridYZ)));
    return cuda::launch(nchw_stream<T, K, S, V, kRows>, grid, block, StreamWeights<T, K>::shared_bytes(planes), stream,
                        p);
  }

  static const char* launch(const Shape& s, const Buffers& b, Stream stream) {
    if (!is_short(b.activation)) return GatherAny<T, map, Layout::nchw>::launch(s, b, stream);
    StreamProblem<T> p;
    p.source = static_cast<const T*>(transposed ? b.grad_output : b.input);
    p.weight = static_cast<const T*>(b.weight);
    p.bias = static_cast<const T*>(b.bias);
    p.result = static_cast<T*>(b.result);
    p.images = s.N, p.channels = s.C;
    p.source_rows = int(transposed ? s.OH : s.H), p.source_columns = int(transposed ? s.OW : s.W);
    p.rows = int(transposed ? s.H : s.OH), p.columns = int(transposed ? s.W : s.OW);
    p.pad_top = int(transposed ? K - 1 - s.pad_top : s.pad_top);
    p.pad_left = int(transposed ? K - 1 - s.pad_left : s.pad_left);
    p.rotated = transposed;
    p.activation = b.activation;
    if (p.images == 0 || p.channels == 0 || p.rows == 0 || p.columns == 0) return nullptr;
    // The widest packs that fill 16 bytes of the result, or half of them for rows that have no whole ones.
    constexpr int kWide = 16 / int(sizeof(T)), kHalf = kWide / 2, kLeftPack = round_up_to_power(K / 2);
    const bool halved = p.source_columns == S * p.columns && p.pad_left == K / 2;
    if (halved && fits<T>(kWide, p.columns, {p.source, p.result})) {
      if constexpr (kWide * S >= kLeftPack) return launch_packs<kWide, 7>(p, stream);
    }
    if (halved && fits<T>(kHalf, p.columns, {p.source, p.result})) {
      if constexpr (S == 1 && kHalf > 1 && kHalf >= kLeftPack) return launch_packs<kHalf, 7>(p, stream);
    }
    constexpr int kRows = S == 2 && K != 3 ? 3 : 4;  // a fourth would spill
    return launch_packs<1, kRows>(p, stream);
  }
};

}  // namespace dwconv::cuda
