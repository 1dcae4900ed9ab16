// What the kernels that sum over the images of contiguous tensors share: a block owns a channel and a split of its images;
// this is how it shares out strips of rows among its 128 threads, how a thread walks down one, and where its sums go.
#pragma once
#include <algorithm>

#include "divisor.cuh"
#include "source_row.cuh"

namespace dwconv::cuda {

// The jobs of a channel: a strip of rows and a pack of columns of an image, the pack fastest.
struct StripJobs {
  int packs, strips, strip_rows;
  Divisor by_packs, by_strips;
  int64_t count;

  StripJobs() = default;
  // Strips long enough that the k - 1 rows which two of them share cost little, short enough for 128 threads to have
  // work: 28 rows, or the whole plane if it is small.
  StripJobs(int64_t images, int rows, int columns, int pack)
      : packs(columns / pack),
        strips(int(ceil_div(rows, rows <= 32 ? std::max(rows, 1) : 28))),
        strip_rows(rows <= 32 ? std::max(rows, 1) : 28),
        by_packs(packs),
        by_strips(strips),
        count(images * strips * packs) {}

  struct Place {
    int64_t image;
    int row, pack;
  };
  __device__ __forceinline__ Place place(int64_t job) const {
    const int64_t strip_of_all = by_packs.divide(job), image = by_strips.divide(strip_of_all);
    return {image, int(strip_of_all - image * strips) * strip_rows, int(job - strip_of_all * packs)};
  }
};

// The walk of one thread down a strip. Each source row is read once, as one vector and its halos, and meets the rows of
// the thread's own above it, which take turns in kKept places of registers. What becomes of them is what Own says:
//   begin(place, row)                 reads the strip's `row` into a place
//   meet(place, kh, source, columns)  its row kh of taps is on a source row
//   end(place, row)                   it has met all
//   shift()                           each place gets what is in the next
template <class T, int K, int S, int V>
struct StripWalk {
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

  // Down a strip of so many rows: a step takes up one of the thread's own and S source rows.
  template <class Own>
  __device__ __forceinline__ void down(Own& own, int strip_rows) {
    for (int step = 0; step < strip_rows + kKept - 1;) {
      if (step >= kKept - 1 && step + kKept <= strip_rows) {
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
        if (step < strip_rows) own.begin(kKept - 1, step);
        read(own, kKept - 1, [&](int age) { return unsigned(step - age) < unsigned(strip_rows); });
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
  Accumulator<T>* partials;  // null: one split, written directly; laid out as in grad_weight_any.cuh
  int channels;
};

// Of the operation grad_weight, whose result they are.
template <class T>
ChannelSums<T> channel_sums(const Shape& s, const Buffers& b, int64_t splits) {
  return {static_cast<T*>(b.result), static_cast<T*>(b.grad_bias),
          splits == 1 ? nullptr : static_cast<Accumulator<T>*>(b.workspace), int(s.C)};
}

// Adds those of the block's threads, lanes by shuffles in a fixed tree and warps in order, and writes them: to the
// channel blockIdx.x, as the partial sums of split blockIdx.y. `rotated`: the last tap comes first.
template <int K, bool rotated, class T>
__device__ __forceinline__ void add_up(const ChannelSums<T>& to, Accumulator<T> (&sums)[K * K + 1],
                                       Accumulator<T>* shared) {
  using A = Accumulator<T>;
  constexpr int kSums = K * K + 1, kWarps = 4;
  const int64_t splits = gridDim.y, split = blockIdx.y;
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
      A* at = is_bias ? to.partials + splits * to.channels * (K * K) + split * to.channels + channel
                      : to.partials + (split * to.channels + channel) * (K * K) + tap;
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
