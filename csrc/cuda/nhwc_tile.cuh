// forward and grad_input at stride 1 and 2 for channels_last tensors of float32, bfloat16 and float16, k x k kernels,
// dilation 1, multiplier 1.
//
// Method: lanes are neighbours along C, V channels each, and a thread computes tiles of 2 x kColumns results. It reads each
// source pixel of a tile once and uses it for all results that need it. Which tap joins which source and result is known
// to the compiler (TileAxis), for grad_input at stride 2 too, where tiles begin at whole strides and a quarter of the taps
// meets each result. grad_input at stride 1 is forward with the kernel rotated and the padding mirrored. Weights are
// staged in shared memory, transposed and in float32, once for all tiles of a block. Tiles that lie inside the source ask
// nothing; at its borders loads and multiply-adds are predicated: padding is skipped, not multiplied.
// Bound: reads of L1. At stride 1 (k + 1) (kColumns + k - 1) of the source for each tile, and k^2 of weights, which is why
// kernels of 5 and 7 have two channels and four columns a thread: half as many weights for each product as the reverse.
#pragma once
#include "activate.cuh"
#include "gather_any.cuh"
#include "nhwc_lanes.cuh"

namespace dwconv::cuda {

template <class T>
struct TileProblem {
  const T* source;
  const T* weight;
  const T* bias;
  T* result;
  int channels, channel_blocks;
  int source_rows, source_columns, rows, columns;
  int first_row, first_column;                // results of the first tile; those below 0 do not exist
  int first_source_row, first_source_column;  // that it reads
  int tile_rows, tile_columns, strip;         // of tiles; a thread walks down `strip` of them
  Divisor by_channel_blocks;
  bool rotated;  // the kernel, which makes grad_input at stride 1 of forward
  Activation activation;
};

// One dimension of a tile: which of its sources result `result` reads through a tap, or -1.
template <int K, int S, bool transposed>
struct TileAxis {
  __host__ __device__ static constexpr int source(int result, int tap) {
    if (!transposed) return result * S + tap;
    const int scaled = result - tap + (K - 1) / S * S;
    return scaled % S ? -1 : scaled / S;
  }
  __host__ __device__ static constexpr int sources(int results) {
    return transposed ? (results - 1) / S + (K - 1) / S + 1 : (results - 1) * S + K;
  }
  // From one tile's first source to the next one's.
  __host__ __device__ static constexpr int step(int results) { return transposed ? results / S : results * S; }
  // The last source that any of the results reads through a tap.
  __host__ __device__ static constexpr int last(int results, int tap) {
    int last = -1;
    for (int i = 0; i < results; ++i) last = source(i, tap) > last ? source(i, tap) : last;
    return last;
  }
};

constexpr int kTileRows = 2;
// Of a tap's weights in shared memory: whole 16-byte words, and few bank conflicts when they are staged.
template <int V>
constexpr int kTilePitch = 32 * V + 4;

// Adds all products of a tile. `from` points to its first source; `interior`: all of them exist.
template <bool interior, class T, int K, int S, int V, int kColumns, bool transposed>
__device__ __forceinline__ void add_tile(const TileProblem<T>& p, const T* from, int source_row, int source_column,
                                         const Accumulator<T>* weights, Accumulator<T> (&acc)[kTileRows][kColumns][V]) {
  using A = Accumulator<T>;
  using Axis = TileAxis<K, S, transposed>;
  constexpr int kSourceRows = Axis::sources(kTileRows), kSourceColumns = Axis::sources(kColumns);
  // Whether the weights of a tap are read once, for both rows of results, which keeps rows of sources in registers: at
  // stride 2, forward, those would be too many.
  constexpr int kTogether = S == 1 || transposed ? kTileRows : 1;
  const int pixel = p.channels, line = p.source_columns * pixel;
  const auto exists = [&](int r, int c) {
    return interior || (unsigned(source_row + r) < unsigned(p.source_rows) &&
                        unsigned(source_column + c) < unsigned(p.source_columns));
  };
  A x[kSourceRows][kSourceColumns][V];
#pragma unroll
  for (int r = 0; r < kSourceRows; ++r, from += line) {
#pragma unroll
    for (int c = 0; c < kSourceColumns; ++c) {
      Pack<T, V> pack;
      if (exists(r, c)) {
        pack = read<V>(from + c * pixel);
      } else {
        pack.words[0] = {};
      }
      widen_pack<T, V>(pack, x[r][c]);
    }
    // The products that wait for no later row.
#pragma unroll
    for (int kh = 0; kh < K; ++kh) {
#pragma unroll
      for (int first = 0; first < kTileRows; first += kTogether) {
        if (r != (kTogether > 1 ? Axis::last(kTileRows, kh) : Axis::source(first, kh))) continue;
#pragma unroll
        for (int kw = 0; kw < K; ++kw) {
          A w[V];
          load_shared(weights + (kh * K + kw) * kTilePitch<V>, w);
#pragma unroll
          for (int o = first; o < first + kTogether; ++o) {
#pragma unroll
            for (int j = 0; j < kColumns; ++j) {
              const int a = Axis::source(o, kh), b = Axis::source(j, kw);
              if (a < 0 || b < 0) continue;
#pragma unroll
              for (int v = 0; v < V; ++v) {
                if (exists(a, b)) acc[o][j][v] = multiply_add(x[a][b][v], w[v], acc[o][j][v]);
              }
            }
          }
        }
      }
    }
  }
}

template <class T, int K, int S, int V, int kColumns, bool transposed>
__global__ void __launch_bounds__(128, 4) nhwc_tile(TileProblem<T> p) {
  using A = Accumulator<T>;
  using Axis = TileAxis<K, S, transposed>;
  static_assert(Pack<T, V>::kWords == 1 && kTileRows % S == 0 && kColumns % S == 0);
  constexpr int kTaps = K * K, kPitch = kTilePitch<V>;
  DWCONV_SHARED_MEMORY(A, shared);  // (taps + 1, kPitch): the weights, then the bias
  const int64_t image = p.by_channel_blocks.divide(blockIdx.x);
  const int first_channel = int(blockIdx.x - image * p.channel_blocks) * int(blockDim.x * V);
  const int left = p.channels - first_channel, lanes = int(blockDim.x) * V, staged = left < lanes ? left : lanes;
  const int thread = int((threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x),
            threads = int(blockDim.x * blockDim.y * blockDim.z);
  const T* weight = p.weight + int64_t(first_channel) * kTaps;
#pragma unroll 2
  for (int i = thread; i < staged * kTaps; i += threads) {
    const int tap = i % kTaps;
    shared[(p.rotated ? kTaps - 1 - tap : tap) * kPitch + i / kTaps] = widen(__ldg(weight + i));
  }
  for (int i = thread; i < staged; i += threads) {
    shared[kTaps * kPitch + i] = p.bias ? widen(__ldg(p.bias + first_channel + i)) : A(0);
  }
  __syncthreads();

  const int channel = first_channel + int(threadIdx.x) * V;
  const int tile_column = int(blockIdx.y * blockDim.y + threadIdx.y);
  if (channel >= p.channels || tile_column >= p.tile_columns) return;
  const A* weights = shared + threadIdx.x * V;
  const T* source = p.source + image * p.source_rows * p.source_columns * p.channels + channel;
  T* result = p.result + image * p.rows * p.columns * p.channels + channel;
  const int source_column = tile_column * Axis::step(kColumns) + p.first_source_column,
            column = tile_column * kColumns + p.first_column;
  const bool columns_exist = source_column >= 0 && source_column + Axis::sources(kColumns) <= p.source_columns;
  const int top = int(blockIdx.z * blockDim.z + threadIdx.z) * p.strip,
            bottom = top + p.strip < p.tile_rows ? top + p.strip : p.tile_rows;
  for (int tile_row = top; tile_row < bottom; ++tile_row) {
    const int source_row = tile_row * Axis::step(kTileRows) + p.first_source_row,
              row = tile_row * kTileRows + p.first_row;
    const T* from = source + (int64_t(source_row) * p.source_columns + source_column) * p.channels;
    T* to = result + (int64_t(row) * p.columns + column) * p.channels;
    A acc[kTileRows][kColumns][V], bias[V];
    load_shared(weights + kTaps * kPitch, bias);
#pragma unroll
    for (int i = 0; i < kTileRows * kColumns * V; ++i) acc[i / V / kColumns][i / V % kColumns][i % V] = bias[i % V];
    if (columns_exist && source_row >= 0 && source_row + Axis::sources(kTileRows) <= p.source_rows) {
      add_tile<true, T, K, S, V, kColumns, transposed>(p, from, source_row, source_column, weights, acc);
    } else {
      add_tile<false, T, K, S, V, kColumns, transposed>(p, from, source_row, source_column, weights, acc);
    }
#pragma unroll
    for (int o = 0; o < kTileRows; ++o) {
#pragma unroll
      for (int j = 0; j < kColumns; ++j) {
        if (unsigned(row + o) < unsigned(p.rows) && unsigned(column + j) < unsigned(p.columns)) {
          activate<true>(acc[o][j], p.activation);
          Pack<T, V> out;
#pragma unroll
          for (int v = 0; v < V; ++v) out[v] = narrow<T>(acc[o][j][v]);
          write<V>(to + (o * p.columns + j) * p.channels, out);
        }
      }
    }
  }
}

template <class T, int K, int S, Map map>
struct NhwcTile {
  static constexpr bool transposed = map == Map::grad_input, rotated = transposed && S == 1,
                        gathers = transposed && S > 1;
  using Axis = TileAxis<K, S, gathers>;
  static constexpr const char* (*supports)(const Shape&) = nhwc_refusal<K, S>;
  static constexpr int64_t (*workspace_bytes)(const Shape&) = nullptr;

  // One dimension of the launch: tiles, and where the first one begins.
  static int64_t tile(int64_t results, int64_t pad, int per_tile, int& first, int& first_source) {
    if (rotated) pad = K - 1 - pad;
    const int64_t before = gathers ? (pad % S + S) % S : 0;
    first = int(-before);
    first_source = int(gathers ? (pad - before) / S - (K - 1) / S : -pad);
    return ceil_div(results + before, per_tile);
  }

  template <int V, int kColumns>
  static const char* launch_tiles(TileProblem<T>& p, const Shape& s, Stream stream) {
    p.tile_rows = int(tile(p.rows, s.pad_top, kTileRows, p.first_row, p.first_source_row));
    p.tile_columns = int(tile(p.columns, s.pad_left, kColumns, p.first_column, p.first_source_column));
    const int across_channels = channel_lanes<T>(V, p.channels);
    p.channel_blocks = int(ceil_div(p.channels, across_channels * V));
    p.by_channel_blocks = Divisor(p.channel_blocks);
    const int across = std::min(p.tile_columns, 128 / across_channels);
    // One tile a thread until those fill a device twice over, then more, which share the staging of the weights.
    constexpr int64_t kThreads = 1 << 17, kMostTiles = 8;
    const int64_t threads = s.N * p.channel_blocks * across_channels * p.tile_rows * p.tile_columns;
    const int64_t wanted = std::clamp<int64_t>(threads / kThreads, 1, kMostTiles);
    const int64_t strips = std::min(ceil_div(p.tile_rows, wanted), kMaxGridYZ);
    p.strip = int(ceil_div(p.tile_rows, strips));
    const int down = int(std::min<int64_t>(strips, 128 / (across_channels * across)));
    const dim3 block{unsigned(across_channels), unsigned(across), unsigned(down)};
    const dim3 grid(unsigned(s.N * p.channel_blocks), unsigned(ceil_div(p.tile_columns, across)),
                    unsigned(ceil_div(strips, down)));
    const size_t shared_bytes = (K * K + 1) * kTilePitch<V> * sizeof(Accumulator<T>);
    return cuda::launch(nhwc_tile<T, K, S, V, kColumns, gathers>, grid, block, shared_bytes, stream, p);
  }

  static const char* launch(const Shape& s, const Buffers& b, Stream stream) {
    if (!is_short(b.activation)) return GatherAny<T, map, Layout::nhwc>::launch(s, b, stream);
    TileProblem<T> p;
    p.source = static_cast<const T*>(transposed ? b.grad_output : b.input);
    p.weight = static_cast<const T*>(b.weight);
    p.bias = static_cast<const T*>(b.bias);
    p.result = static_cast<T*>(b.result);
    p.channels = int(s.C);
    p.source_rows = int(transposed ? s.OH : s.H), p.source_columns = int(transposed ? s.OW : s.W);
    p.rows = int(transposed ? s.H : s.OH), p.columns = int(transposed ? s.W : s.OW);
    p.rotated = rotated;
    p.activation = b.activation;
    if (s.N == 0 || s.C == 0 || p.rows == 0 || p.columns == 0) return nullptr;
    constexpr int kWide = K == 3 ? 4 : 2;
    // Four columns would spill in float32 at 3x3, and forward at stride 2, where they read up to thirteen.
    constexpr bool strided = S == 2 && !transposed, narrow = strided || (K == 3 && S == 1 && sizeof(T) == 4);
    constexpr int kColumns = narrow ? 2 : 4;
    if (!fits<T>(kWide, s.C, {p.source, p.result})) return launch_tiles<1, strided ? 2 : 4>(p, s, stream);
    // Small problems have more threads to gain from smaller tiles than instructions to lose.
    if constexpr (K == 3 && S == 1 && kColumns > 2) {
      constexpr int64_t kFewResults = int64_t(1) << 21;
      if (s.N * s.C * p.rows * p.columns <= kFewResults) return launch_tiles<kWide, 2>(p, s, stream);
    }
    return launch_tiles<kWide, kColumns>(p, s, stream);
  }
};

}  // namespace dwconv::cuda
