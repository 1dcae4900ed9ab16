// What the kernels that sum over the images of contiguous tensors share: a block owns a channel and a chunk of its images;
// this is how it shares out bands of rows among its 128 threads, how a thread walks down one, and where its sums go.
#pragma once
#include <algorithm>

#include "../chunks.cuh"
#include "../device/address.cuh"
#include "../device/divisor.cuh"
#include "source_row.cuh"

namespace dwconv::cuda {

// The items of a channel: a band of rows and a strip of columns of an image, the strip fastest.
struct BandItems {
  int strips, bands, band_rows;
  Divisor by_strips, by_bands;
  int64_t count;

  BandItems() = default;
  // Strips long enough that the k - 1 rows which two of them share cost little, short enough for 128 threads to have
  // work: 28 rows, or the whole plane if it is small.
  BandItems(int64_t images, int rows, int columns, int strip)
      : strips(columns / strip),
        bands(int(ceil_div(rows, rows <= 32 ? std::max(rows, 1) : 28))),
        band_rows(rows <= 32 ? std::max(rows, 1) : 28),
        by_strips(strips),
        by_bands(bands),
        count(images * bands * strips) {}

  struct Place {
    int64_t image;
    int row, strip;
  };
  __device__ __forceinline__ Place place(int64_t item) const {
    const int64_t band_of_all = by_strips.divide(item), image = by_bands.divide(band_of_all);
    return {image, int(band_of_all - image * bands) * band_rows, int(item - band_of_all * strips)};
  }
};

// The walk of one thread down a band. Each source row is read once, as one vector and its halos, and meets the rows of
// the thread's own above it, which take turns in kKept places of registers. What becomes of them is what Own says:
//   begin(place, row)                 reads the band's `row` into a place
//   meet(place, kh, source, columns)  its row kh of taps is on a source row
//   end(place, row)                   it has met all
//   shift()                           each place gets what is in the next
template <class T, int K, int S, int V>
struct BandWalk {
  using Row = SourceRow<T, K, S, V>;
  static constexpr int kKept = (K + S - 1) / S;  // rows of its own that one source row meets

  typename Row::Columns columns;
  const T* source;  // row 0 of the plane, from the first column on that the thread needs
  int row;          // the next to be read
  int rows, pitch;  // of the plane; bytes from one to the next

  // Reads S source rows for the thread's own above them, of which the newest is in place `newest`; those for which
  // there(age) is false are not there.
  template <class Own, class There>
  __device__ __forceinline__ void read(Own& own, int newest, const There& there) {
#pragma unroll
    for (int r = 0; r < S; ++r) {
      if (unsigned(row) < unsigned(rows)) {
        Row x;
        x.load(row_at(source, row, pitch), columns);
#pragma unroll
        for (int age = 0; age < kKept; ++age) {
          const int kh = r + age * S;
          if (kh < K && there(age)) own.meet((newest + kKept - age) % kKept, kh, x, columns);
        }
      }
      ++row;
    }
  }

  // Down a band of so many rows: a step takes up one of the thread's own and S source rows.
  template <class Own>
  __device__ __forceinline__ void down(Own& own, int band_rows) {
    for (int step = 0; step < band_rows + kKept - 1;) {
      if (step >= kKept - 1 && step + kKept <= band_rows) {
        // All of its own are there, and change places once around.
#pragma unroll
        for (int place = 0; place < kKept; ++place) {
          own.begin(place, step + place);
          read(own, place, [](int) { return true; });
          own.end((place + 1) % kKept, step + place - (kKept - 1));
        }
        step += kKept;
      } else {
        // The newest comes into the last place, as when they have gone once around.
        own.shift();
        if (step < band_rows) own.begin(kKept - 1, step);
        read(own, kKept - 1, [&](int age) { return unsigned(step - age) < unsigned(band_rows); });
        if (step >= kKept - 1) own.end(0, step - (kKept - 1));
        ++step;
      }
    }
  }
};

// Sums of a channel: its weights' gradients, then its bias's.
template <class T>
struct ChannelSums {
  T* grad_weight;
  T* grad_bias;              // null: not wanted
  Accumulator<T>* partials;  // null: one chunk, written directly; laid out as in chunks.cuh
  int channels;
};

// Adds those of the block's threads, lanes by shuffles in a fixed tree and warps in order, and writes them: to the
// channel blockIdx.x, as the partial sums of chunk blockIdx.y. `rotated`: the last tap comes first.
template <int K, bool rotated, class T>
__device__ __forceinline__ void add_up(const ChannelSums<T>& to, Accumulator<T> (&sums)[K * K + 1],
                                       Accumulator<T>* shared) {
  using A = Accumulator<T>;
  constexpr int kSums = K * K + 1, kWarps = 4;
  const int64_t chunks = gridDim.y, chunk = blockIdx.y;
  const int channel = int(blockIdx.x);
#pragma unroll
  for (int i = 0; i < kSums; ++i) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) sums[i] += __shfl_xor_sync(0xffffffffu, sums[i], step);
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32 * kSums + i] = sums[i];
  }
  __syncthreads();
  if (threadIdx.x < kSums) {
    const int i = int(threadIdx.x), tap = rotated ? K * K - 1 - i : i;
    A sum = shared[i];
    for (int warp = 1; warp < kWarps; ++warp) sum += shared[warp * kSums + i];
    const bool is_bias = i == K * K;
    if (to.partials) {
      A* at = is_bias ? to.partials + chunks * to.channels * (K * K) + chunk * to.channels + channel
                      : to.partials + (chunk * to.channels + channel) * (K * K) + tap;
      *at = sum;
    } else if (!is_bias) {
      to.grad_weight[channel * (K * K) + tap] = narrow<T>(sum);
    } else if (to.grad_bias) {
      to.grad_bias[channel] = narrow<T>(sum);
    }
  }
}

template <class T, int K>
constexpr size_t kSumsBytes = 4 * (K * K + 1) * sizeof(Accumulator<T>);  // of shared memory, for add_up

}  // namespace dwconv::cuda
