// forward and grad_input, contiguous layout (NCHW), small planes.
//
// Method: a block is as many channels as a vector has lanes. The planes of a few images are transposed to pixels of that
// block, the NHWC kernel computes pixels of results, and those are transposed back; all of it stays in L1. A row of
// 4 results would leave most of a vector along it empty, and most of the time would go into its borders.
// Bound: the shuffles.

template <class T>
struct NchwGatherBlocked {
  using A = Acc<T>;
  using Nhwc = NhwcGather<A>;
  static constexpr int L = kLanes<A>;
  static constexpr int64_t kScratch = 32768 / (L * sizeof(A));  // pixels of sources and results together
  static constexpr int64_t kTaps = 121;

  static int64_t vectors(const Gather<T>& problem) { return ceil_div(problem.channels, L); }
  static int64_t source_pixels(const Gather<T>& problem) { return problem.rows.sources * problem.cols.sources; }
  static int64_t result_pixels(const Gather<T>& problem) { return problem.rows.results * problem.cols.results; }

  // Images computed together.
  static int64_t together(const Gather<T>& problem) {
    return kScratch / std::max<int64_t>(1, source_pixels(problem) + result_pixels(problem));
  }
  static int64_t groups(const Gather<T>& problem) { return ceil_div(problem.images, together(problem)); }
  static int64_t chunks(const Gather<T>& problem) { return bands(groups(problem), 1, vectors(problem)); }

  // An item is a block of channels of some groups of images.
  static int64_t items(Map map, const Shape& shape) {
    const Gather<T> problem(map, shape, {});
    return vectors(problem) * chunks(problem);
  }

  static void run(Map map, const Shape& shape, const Buffers& buffers, int64_t begin, int64_t end) {
    const Gather<T> problem(map, shape, buffers);
    const int64_t images = ceil_div(groups(problem), chunks(problem)) * together(problem);
    for (int64_t item = begin; item < end; ++item) {
      const int64_t first = item % chunks(problem) * images;
      run_block(map, shape, problem, item / chunks(problem), first, std::min(problem.images, first + images));
    }
  }

  static void run_block(Map map, const Shape& shape, const Gather<T>& problem, int64_t vector, int64_t begin,
                        int64_t end) {
    alignas(kVecBytes) A scratch[kScratch * L], weight[kTaps * L], bias[L];
    const Planes<const T> weights{problem.weight, problem.channels, problem.taps, 1};
    weights.to_pixels(0, vector, 0, problem.taps, weight);
    if (problem.bias) store(bias, load(problem.bias + vector * L, lanes<A>(0, problem.channels - vector * L)));

    const int64_t most = std::min(together(problem), problem.images);
    A* results = scratch + most * source_pixels(problem) * L;
    Shape block = shape;
    block.N = most, block.C = L, block.M = 1;
    Buffers operands;
    (problem.transposed ? operands.grad_output : operands.input) = scratch;
    operands.bias = problem.bias ? bias : nullptr;
    operands.result = results;
    operands.activation = problem.activation;
    const Gather<A> inner(map, block, operands);
    const Channels<A> channels(L, inner.taps);
    const typename Nhwc::Rows rows(inner, channels, weight);

    const Planes<const T> sources{problem.source, problem.source_channels, source_pixels(problem),
                                  problem.channels / problem.source_channels};
    const Planes<T> planes{problem.result, problem.channels, result_pixels(problem), 1};
    for (int64_t n = begin; n < end; n += most) {
      const int64_t count = std::min(most, end - n);
      for (int64_t i = 0; i < count; ++i) {
        sources.to_pixels(n + i, vector, 0, sources.pitch, scratch + i * sources.pitch * L);
        for (int64_t o = 0; o < inner.rows.results; ++o) rows.row(i, o, 0);
        planes.from_pixels(n + i, vector, results + i * planes.pitch * L);
      }
    }
  }

  static const char* supports(Map map, const Shape& shape) {
    const Gather<T> problem(map, shape, {});
    if (problem.fan_in != 1) return "it adds up no channel multiplier";
    if (problem.taps > kTaps) return "it has no room for so many taps";
    if (2 * problem.channels < L) return "the channels fill less than half a vector";
    // Measured: from 7x7 to 7x7 on, the transposition costs more than the lanes that it saves.
    if (source_pixels(problem) + result_pixels(problem) > 8 * 8 + 4 * 4) return "the planes are not small";
    return nullptr;
  }
};

template <class T, Map map>
struct NchwGatherBlockedKernel {
  static int64_t items(const Shape& shape) { return NchwGatherBlocked<T>::items(map, shape); }
  static void run(const Shape& shape, const Buffers& buffers, int64_t begin, int64_t end) {
    NchwGatherBlocked<T>::run(map, shape, buffers, begin, end);
  }
  static const char* supports(const Shape& shape) { return NchwGatherBlocked<T>::supports(map, shape); }
  static constexpr int64_t (*workspace_bytes)(const Shape&) = nullptr;
  static constexpr Stage stages[] = {{items, run}};
};
template <class T>
using NchwForwardBlocked = NchwGatherBlockedKernel<T, Map::forward>;
template <class T>
using NchwGradInputBlocked = NchwGatherBlockedKernel<T, Map::grad_input>;
