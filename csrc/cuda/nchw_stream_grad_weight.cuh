// grad_weight and the bias gradient for contiguous tensors of float32, bfloat16 and float16, k x k kernels at stride 1 and
// 2, dilation 1, multiplier 1.
//
// Method: a block of 128 threads owns a channel and a split of its images. A thread owns V neighbouring columns of the
// gradient and a strip of its rows, and walks down the input under them: each input row is read once, as one vector and
// its halos, and meets the k rows of the gradient above it, which roll through registers. The k^2 sums stay in registers
// until the end; then lanes are added by shuffles in a fixed tree, warps in order, and splits by a second launch, in
// order. Padding is skipped, not multiplied. V > 1 asks the same of rows and padding as in nchw_stream.cuh.
// Bound: k^2 multiply-adds; one read of each input and gradient, and the halos.
#pragma once
#include "grad_weight_any.cuh"
#include "nchw_stream.cuh"

namespace dwconv::cuda {

template <class T>
struct StreamGradWeightProblem {
  const T* input;
  const T* grad_output;
  T* grad_weight;
  T* grad_bias;
  Accumulator<T>* partials;  // null: one split, written directly; laid out as in grad_weight_any.cuh
  int channels;
  int rows, columns, input_rows, input_columns, pad_top, pad_left;
  int column_packs, strips, strip_rows;
  int input_pitch, grad_pitch;  // bytes from row to row
  Divisor by_packs, by_strips;
  int64_t jobs;  // of a channel: (image, strip, pack), the pack fastest
};

// The walk of one thread down a strip.
template <class T, int K, int S, int V>
struct GradWeightWalk {
  using A = Accumulator<T>;
  using Row = SourceRow<T, K, S, V>;
  static constexpr int kKept = (K + S - 1) / S;  // rows of the gradient that one input row meets

  const StreamGradWeightProblem<T>& p;
  typename Row::Columns columns;
  const T* grad;   // row 0 of the strip
  const T* input;  // row 0 of the plane, from column first * S - pad on
  int input_row;   // the next to be read
  A kept[kKept][V];
  A (&sums)[K * K + 1];

  __device__ __forceinline__ void read_grad(int row, A (&to)[V]) {
    Pack<T, V> pack = read<V>(row_at(grad, row, p.grad_pitch));
#pragma unroll
    for (int v = 0; v < V; ++v) {
      to[v] = widen(pack[v]);
      sums[K * K] += to[v];
    }
  }

  // Reads S input rows and adds their products with the rows of the gradient above them, of which the newest is in
  // kept[newest]; those for which there(age) is false are not there.
  template <class There>
  __device__ __forceinline__ void add_rows(int newest, const There& there) {
#pragma unroll
    for (int r = 0; r < S; ++r) {
      if (unsigned(input_row) < unsigned(p.input_rows)) {
        Row x;
        x.load(row_at(input, input_row, p.input_pitch), columns);
#pragma unroll
        for (int age = 0; age < kKept; ++age) {
          const int kh = r + age * S;
          if (kh < K && there(age)) {
            const A(&g)[V] = kept[(newest + kKept - age) % kKept];
            for_each_tap<T, K, S, V>(x, columns, [&](int v, int kw, A value) {
              sums[kh * K + kw] = multiply_add(value, g[v], sums[kh * K + kw]);
            });
          }
        }
      }
      ++input_row;
    }
  }

  // A step reads a row of the gradient, of which the strip has `rows`, and S of the input.
  __device__ __forceinline__ void strip(int rows) {
    for (int step = 0; step < rows + kKept - 1;) {
      if (step >= kKept - 1 && step + kKept <= rows) {
        // All rows of the gradient are there, and change places once around.
#pragma unroll
        for (int place = 0; place < kKept; ++place) {
          read_grad(step + place, kept[place]);
          add_rows(place, [](int) { return true; });
        }
        step += kKept;
      } else {
        // The newest comes into the last place, as when they have gone once around.
#pragma unroll
        for (int i = 0; i < kKept - 1; ++i) {
#pragma unroll
          for (int v = 0; v < V; ++v) kept[i][v] = kept[i + 1][v];
        }
        if (step < rows) read_grad(step, kept[kKept - 1]);
        add_rows(kKept - 1, [&](int age) { return unsigned(step - age) < unsigned(rows); });
        ++step;
      }
    }
  }
};

template <class T, int K, int S, int V>
__device__ __forceinline__ void grad_weight_strip(const StreamGradWeightProblem<T>& p, int channel, int64_t job,
                                                  Accumulator<T> (&sums)[K * K + 1]) {
  const int64_t strip_of_all = p.by_packs.divide(job), image = p.by_strips.divide(strip_of_all);
  const int column = int(job - strip_of_all * p.column_packs) * V;
  const int first = int(strip_of_all - image * p.strips) * p.strip_rows;
  const int64_t plane = image * p.channels + channel;
  using Walk = GradWeightWalk<T, K, S, V>;
  Walk walk{p,
            Walk::Row::columns(column, p.pad_left, p.input_columns),
            opaque(p.grad_output + plane * p.rows * p.columns + (first * p.columns + column)),
            opaque(p.input + plane * p.input_rows * p.input_columns + (column * S - p.pad_left)),
            first * S - p.pad_top,
            {},
            sums};
  walk.strip(p.rows - first < p.strip_rows ? p.rows - first : p.strip_rows);
}

// Blocks that a multiprocessor must be able to hold: the most of which none spills.
template <int K, int S>
constexpr int kGradWeightBlocks = K == 7   ? (S == 1 ? 3 : 4)
                                  : K == 5 ? 5
                                           : 8;

template <class T, int K, int S, int V>
__global__ void __launch_bounds__(128, kGradWeightBlocks<K, S>) nchw_stream_grad_weight(StreamGradWeightProblem<T> p) {
  using A = Accumulator<T>;
  constexpr int kSums = K * K + 1, kWarps = 4;
  DWCONV_SHARED_MEMORY(A, shared);  // (warps, sums)
  const int64_t splits = gridDim.y, split = blockIdx.y;
  const int channel = int(blockIdx.x);
  A sums[kSums];
#pragma unroll
  for (int i = 0; i < kSums; ++i) sums[i] = A(0);
  for (int64_t job = split * 128 + threadIdx.x; job < p.jobs; job += splits * 128) {
    grad_weight_strip<T, K, S, V>(p, channel, job, sums);
  }
#pragma unroll
  for (int i = 0; i < kSums; ++i) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) sums[i] += __shfl_xor_sync(0xffffffffu, sums[i], step);
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32 * kSums + i] = sums[i];
  }
  __syncthreads();
  if (threadIdx.x < kSums) {
    const int i = int(threadIdx.x);
    A sum = shared[i];
    for (int warp = 1; warp < kWarps; ++warp) sum += shared[warp * kSums + i];
    const bool is_bias = i == K * K;
    if (p.partials) {
      A* to = is_bias ? p.partials + splits * p.channels * (K * K) + split * p.channels + channel
                      : p.partials + (split * p.channels + channel) * (K * K) + i;
      *to = sum;
    } else if (!is_bias) {
      p.grad_weight[channel * (K * K) + i] = narrow<T>(sum);
    } else if (p.grad_bias) {
      p.grad_bias[channel] = narrow<T>(sum);
    }
  }
}

template <class T, int K, int S>
struct NchwStreamGradWeight {
  static const char* supports(const Shape& s) { return NchwStream<T, K, S, Map::forward>::supports(s); }

  // All by the shape alone, with one column a job, so that neither the device nor an address changes a split.
  static int64_t splits(const Shape& s) {
    constexpr int64_t kBlocks = 1024, kTermsOfAThread = 4096;
    const int64_t terms = s.N * s.OH * s.OW;
    const int64_t wanted =
        std::max(ceil_div(kBlocks, std::max<int64_t>(s.C, 1)), ceil_div(terms, 128 * kTermsOfAThread));
    return std::max<int64_t>(1, std::min({wanted, ceil_div(terms, 128 * 64), kMaxGridYZ}));
  }

  static int64_t workspace_bytes(const Shape& s) {
    const int64_t count = splits(s);
    return count == 1 ? 0 : count * s.C * (K * K + 1) * int64_t(sizeof(Accumulator<T>));
  }

  template <int V>
  static const char* launch_packs(StreamGradWeightProblem<T>& p, int64_t images, int64_t splits, Stream stream) {
    p.column_packs = p.columns / V;
    // Strips long enough that the k - 1 rows which two of them share cost little, short enough for 128 threads to have
    // work: 28 rows, or the whole plane if it is small.
    p.strip_rows = p.rows <= 32 ? std::max(p.rows, 1) : 28;
    p.strips = int(ceil_div(p.rows, p.strip_rows));
    p.jobs = images * p.strips * p.column_packs;
    p.by_packs = Divisor(p.column_packs);
    p.by_strips = Divisor(p.strips);
    const dim3 grid(unsigned(p.channels), unsigned(splits));
    const size_t shared_bytes = 4 * (K * K + 1) * sizeof(Accumulator<T>);
    return cuda::launch(nchw_stream_grad_weight<T, K, S, V>, grid, dim3(128), shared_bytes, stream, p);
  }

  static const char* launch(const Shape& s, const Buffers& b, Stream stream) {
    if (s.C == 0) return nullptr;
    const int64_t count = splits(s);
    StreamGradWeightProblem<T> p;
    p.input = static_cast<const T*>(b.input);
    p.grad_output = static_cast<const T*>(b.grad_output);
    p.grad_weight = static_cast<T*>(b.result);
    p.grad_bias = static_cast<T*>(b.grad_bias);
    p.partials = count == 1 ? nullptr : static_cast<Accumulator<T>*>(b.workspace);
    p.channels = int(s.C);
    p.rows = int(s.OH), p.columns = int(s.OW), p.input_rows = int(s.H), p.input_columns = int(s.W);
    p.pad_top = int(s.pad_top), p.pad_left = int(s.pad_left);
    p.input_pitch = p.input_columns * int(sizeof(T)), p.grad_pitch = p.columns * int(sizeof(T));
    // Four columns a thread whatever the dtype: more would not leave registers for the sums.
    constexpr int kPack = 4;
    const bool packs = p.columns > 0 && p.input_columns == S * p.columns && p.pad_left == K / 2 &&
                       fits<T>(kPack, p.columns, {p.input, p.grad_output});
    const char* error = packs ? launch_packs<kPack>(p, s.N, count, stream) : launch_packs<1>(p, s.N, count, stream);
    if (error || !p.partials) return error;
    return launch_add_splits<T>(p.partials, s, b, count, stream);
  }
};

}  // namespace dwconv::cuda
