// How kernels of contiguous tensors share out planes among blocks, and what a block has of the weights.
#pragma once
#include <algorithm>

#include "source_row.cuh"

namespace dwconv::cuda {

// Each thread has a strip of rows and a pack of columns of one plane: blockIdx.x counts the plane's tiles, blockIdx.y groups
// of channels, blockIdx.z images. Blocks of one plane are neighbours, so that its rows meet in the caches.
struct StreamTiles {
  int strips, packs;
  int column_groups_log2;
  unsigned column_group_mask;  // of blockIdx.x; the bits above it count groups of strips

  __device__ __forceinline__ int strip() const {
    return int((blockIdx.x >> column_groups_log2) * blockDim.y + threadIdx.y);
  }
  __device__ __forceinline__ int pack() const {
    return int((blockIdx.x & column_group_mask) * blockDim.x + threadIdx.x);
  }
};

// At most `threads` in a block: as many whole strips of a plane as there is room for, evenly, since the rows that two of
// them share are read once in a block; then as many planes as leave fewest lanes of warps without work.
struct StreamLaunch {
  StreamTiles tiles;
  dim3 block;
  unsigned tile_count, channel_groups;

  StreamLaunch(int64_t strips, int64_t packs, int channels, int threads) : tiles{int(strips), int(packs), 0, 0} {
    while ((threads << tiles.column_groups_log2) < tiles.packs) ++tiles.column_groups_log2;
    tiles.column_group_mask = (1u << tiles.column_groups_log2) - 1;
    const int across = int(ceil_div(tiles.packs, 1 << tiles.column_groups_log2));
    const int strip_groups = int(ceil_div(tiles.strips, std::max(1, threads / across)));
    const int down = int(ceil_div(tiles.strips, strip_groups));
    const auto warps = [&](int planes) { return ceil_div(channels, planes) * ceil_div(across * down * planes, 32); };
    int planes = 1;
    for (int n = 2; n <= std::min({channels, threads / (across * down), 64}); ++n) {
      if (warps(n) <= warps(planes)) planes = n;
    }
    block = dim3(unsigned(across), unsigned(down), unsigned(planes));
    tile_count = unsigned(strip_groups) << tiles.column_groups_log2;
    channel_groups = unsigned(ceil_div(channels, planes));
  }
  // Of the first of the images that are left, as many as a launch takes.
  dim3 grid(int64_t images) const { return dim3(tile_count, channel_groups, unsigned(std::min(images, kMaxGridYZ))); }
};

// Of a row of weights in shared memory: whole 16-byte words.
template <int K>
constexpr int kWeightsPitch = K == 3 ? 4 : 8;

template <class T, int K>
size_t weights_bytes(unsigned planes) {
  return planes * K * kWeightsPitch<K> * sizeof(Accumulator<T>);
}

// The K x K weights of the thread's channel as float32, in shared memory: 25 or 49 of them in registers would leave too few
// threads. All threads of the block must come here; threadIdx.z counts its channels.
template <class T, int K>
__device__ __forceinline__ Accumulator<T>* stage_weights(const T* all, int channel, int channels, bool rotated) {
  DWCONV_SHARED_MEMORY(Accumulator<T>, shared);
  Accumulator<T>* const own = shared + threadIdx.z * (K * kWeightsPitch<K>);
  if (channel < channels) {
    const T* weight = opaque(all + channel * (K * K));
#pragma unroll 1
    for (int i = int(threadIdx.y * blockDim.x + threadIdx.x); i < K * K; i += int(blockDim.x * blockDim.y)) {
      const int at = rotated ? K * K - 1 - i : i;
      own[at / K * kWeightsPitch<K> + at % K] = widen(__ldg(weight + i));
    }
  }
  __syncthreads();
  return own;
}

}  // namespace dwconv::cuda
