// How kernels of contiguous tensors share out planes among blocks, and what a block has of the weights.
#pragma once
#include <algorithm>

#include "../device/address.cuh"

namespace dwconv::cuda {

// Each thread has a band of rows and a strip of columns of one plane: blockIdx.x counts the parts of the plane, blockIdx.y groups
// of channels, blockIdx.z images. Blocks of one plane are neighbours, so that its rows meet in the caches.
struct PlaneGrid {
  int bands, strips;
  int column_groups_log2;
  unsigned column_group_mask;  // of blockIdx.x; the bits above it count groups of bands

  __device__ __forceinline__ int band() const {
    return int((blockIdx.x >> column_groups_log2) * blockDim.y + threadIdx.y);
  }
  __device__ __forceinline__ int strip() const {
    return int((blockIdx.x & column_group_mask) * blockDim.x + threadIdx.x);
  }
};

// At most `threads` in a block: as many whole bands of a plane as there is room for, evenly, since the rows that two of
// them share are read once in a block; then as many planes as leave fewest lanes of warps without work.
struct PlaneLaunch {
  PlaneGrid places;
  dim3 block;
  unsigned grid_x, channel_groups;

  PlaneLaunch(int64_t bands, int64_t strips, int channels, int threads) : places{int(bands), int(strips), 0, 0} {
    while ((threads << places.column_groups_log2) < places.strips) ++places.column_groups_log2;
    places.column_group_mask = (1u << places.column_groups_log2) - 1;
    const int across = int(ceil_div(places.strips, 1 << places.column_groups_log2));
    const int band_groups = int(ceil_div(places.bands, std::max(1, threads / across)));
    const int down = int(ceil_div(places.bands, band_groups));
    const auto warps = [&](int planes) { return ceil_div(channels, planes) * ceil_div(across * down * planes, 32); };
    int planes = 1;
    for (int n = 2; n <= std::min({channels, threads / (across * down), 64}); ++n) {
      if (warps(n) <= warps(planes)) planes = n;
    }
    block = dim3(unsigned(across), unsigned(down), unsigned(planes));
    grid_x = unsigned(band_groups) << places.column_groups_log2;
    channel_groups = unsigned(ceil_div(channels, planes));
  }
  // Of the first of the images that are left, as many as a launch takes.
  dim3 grid(int64_t images) const { return dim3(grid_x, channel_groups, unsigned(std::min(images, kMaxGridYZ))); }
};

// As many launches as one dimension of the grid needs for the images.
template <class Parameters>
const char* launch_images(void (*kernel)(Parameters), const PlaneLaunch& shares, size_t shared_bytes, int64_t images,
                          Stream stream, Parameters& p) {
  const char* error = nullptr;
  for (; images > 0 && !error; images -= kMaxGridYZ) {
    error = cuda::launch(kernel, shares.grid(images), shares.block, shared_bytes, stream, p);
    p.source += kMaxGridYZ * p.channels * p.source_plane, p.result += kMaxGridYZ * p.channels * p.result_plane;
  }
  return error;
}

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
__device__ __forceinline__ Accumulator<T>* copy_weights(const T* all, int channel, int channels, bool rotated) {
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
