// forward and grad_input, contiguous layout (NCHW), small planes of many channels.
//
// Method: the planes of a few vectors of channels are transposed to pixels, the tiles of NHWC (nhwc_rows.h) compute pixels
// of results, and those are transposed back; all of it stays in L1. No lane is left empty, and padding takes no time.
// Bound: FMA; the shuffles for 3x3.

template <class T>
struct NchwGatherBlocked {
  using A = Acc<T>;
  static constexpr int L = kLanes<A>;
  static constexpr int64_t kPixels = 400;  // vectors of sources and results together
  static constexpr int64_t kTaps = 1024;   // vectors of taps

  static int64_t source_pixels(const Gather<T>& problem) { return problem.rows.sources * problem.cols.sources; }
  static int64_t result_pixels(const Gather<T>& problem) { return problem.rows.results * problem.cols.results; }

  // How the work is cut: an item is a block of vectors of channels of some images.
  struct Plan {
    int64_t vectors, blocks, chunks;
    explicit Plan(const Gather<T>& problem) : vectors(ceil_div(problem.channels, L)) {
      constexpr int64_t kVectors = 4;
      const int64_t pixels = std::max<int64_t>(1, source_pixels(problem) + result_pixels(problem));
      const int64_t most = std::min({kVectors, kPixels / pixels, kTaps / std::max<int64_t>(1, problem.taps)});
      blocks = ceil_div(vectors, std::max<int64_t>(1, most));
      // Memory in its order, but so many images together that packing their taps takes little of the time.
      const int64_t images = ceil_div(4 * problem.taps, pixels);
      chunks = std::max(bands(problem.images, 1, blocks), ceil_div(problem.images, std::max<int64_t>(1, images)));
    }
    int64_t vector(int64_t block) const { return vectors * block / blocks; }
    int64_t items() const { return blocks * chunks; }
  };

  static int64_t items(Operation operation, const Shape& shape) {
    return Plan(Gather<T>(operation, shape, {})).items();
  }

  static void run(Operation operation, const Shape& shape, const Buffers& buffers, int64_t begin, int64_t end) {
    const Gather<T> problem(operation, shape, buffers);
    const Plan plan(problem);
    for (int64_t item = begin; item < end; ++item) {
      const int64_t block = item % plan.blocks, chunk = item / plan.blocks;
      run_block(operation, shape, problem, plan.vector(block), plan.vector(block + 1),
                problem.images * chunk / plan.chunks, problem.images * (chunk + 1) / plan.chunks);
    }
  }

  // Vectors [first, last) of channels of images [begin, end).
  static void run_block(Operation operation, const Shape& shape, const Gather<T>& problem, int64_t first, int64_t last,
                        int64_t begin, int64_t end) {
    const int64_t channels = (last - first) * L;
    alignas(kVecBytes) A scratch[kPixels * L], packed[kTaps * L], bias[kPixels];
    A* results = scratch + source_pixels(problem) * channels;
    const Planes<const T> filters{problem.weight, problem.channels, problem.taps, 1};
    const TapPlaces places(problem.rows, problem.cols);
    for (int64_t v = first; v < last; ++v) {
      filters.to_places(0, v, 0, problem.taps, packed + (v - first) * problem.taps * L,
                        [&](int64_t tap) { return places(tap) * L; });
      if (problem.bias)
        store(bias + (v - first) * L, load(problem.bias + v * L, lanes<A>(0, problem.channels - v * L)));
    }

    Shape block = shape;
    block.N = 1, block.C = channels, block.M = 1;
    Buffers operands;
    (problem.transposed ? operands.grad_output : operands.input) = scratch;
    operands.result = results;
    const Gather<A> inner(operation, block, operands);
    const Lattices rows(inner.rows, true), cols(inner.cols, share_columns(inner.cols));
    const NhwcRows<A> tiles(inner, rows, cols);
    Tile<A> tile;
    tile.bias = problem.bias ? bias : nullptr;
    tile.activation = problem.activation;
    tile.vector_taps = problem.taps * L;
    tile.begin = 0, tile.end = channels, tile.most = channels - L;
    tile.width = inner.cols.sources;
    tile.far = tile.stream = false;

    // Beyond L2 the next block's planes are fetched while these are transposed.
    const int64_t bytes =
        problem.images * problem.channels * (source_pixels(problem) + result_pixels(problem)) * int64_t(sizeof(T));
    const int64_t ahead = bytes > 1 << 20 ? channels : 0;
    const Planes<const T> sources{problem.source, problem.source_channels, source_pixels(problem),
                                  problem.channels / problem.source_channels, ahead * source_pixels(problem)};
    const Planes<T> planes{problem.result, problem.channels, result_pixels(problem), 1, ahead * result_pixels(problem)};
    for (int64_t n = begin; n < end; ++n) {
      for (int64_t v = first; v < last; ++v) {
        sources.to_places(n, v, 0, sources.pitch, scratch + (v - first) * L, [&](int64_t i) { return i * channels; });
      }
      for (int64_t r = 0; r < rows.count(); ++r) {
        Lattice spare;
        const int64_t count = rows.at(r, spare).count;
        for (int64_t j = 0; j < count; j += 2) tiles.compute(tile, scratch, channels, packed, 0, r, j);
      }
      for (int64_t v = first; v < last; ++v) planes.from_pixels(n, v, results + (v - first) * L, channels);
    }
  }

  static const char* supports(Operation operation, const Shape& shape) {
    const Gather<T> problem(operation, shape, {});
    if (problem.fan_in != 1) return "it adds up no channel multiplier";
    if (problem.taps > kTaps) return "it has no room for so many taps";
    if (2 * problem.channels < L) return "the channels fill less than half a vector";
    const int64_t pixels = source_pixels(problem) + result_pixels(problem);
    if (pixels > kPixels) return "the planes are not small";
    // Measured: from 7x7 to 7x7 on, the transposition of 8 lanes of float64 pays for large kernels only, and that for
    // grad_input at a stride for 16-bit types.
    if (pixels > 80 && sizeof(T) == 8 && problem.taps < 49) return "the planes are not small for float64";
    if (pixels > 80 && sizeof(T) > 2 && problem.transposed && shape.stride_h * shape.stride_w > 1) {
      return "the planes are not small for grad_input at a stride";
    }
    return nullptr;
  }
};

template <class T, Operation operation>
struct NchwGatherBlockedKernel {
  static int64_t items(const Shape& shape) { return NchwGatherBlocked<T>::items(operation, shape); }
  static void run(const Shape& shape, const Buffers& buffers, int64_t begin, int64_t end) {
    NchwGatherBlocked<T>::run(operation, shape, buffers, begin, end);
  }
  static const char* supports(const Shape& shape) { return NchwGatherBlocked<T>::supports(operation, shape); }
  static constexpr int64_t (*workspace_bytes)(const Shape&) = nullptr;
  static constexpr Stage stages[] = {{items, run}};
};
template <class T>
using NchwForwardBlocked = NchwGatherBlockedKernel<T, Operation::forward>;
template <class T>
using NchwGradInputBlocked = NchwGatherBlockedKernel<T, Operation::grad_input>;
