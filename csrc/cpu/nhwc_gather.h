// forward and grad_input, channels last (NHWC), any geometry.
//
// Method: a vector runs over channels, a tile goes along R results of a row. One row of taps at a time is held in
// registers while the tile walks its source pixels, each loaded once (tile.h); vertical padding is loop bounds. A first
// stage packs the weights, [channel][tap] to [tap][channel] in the accumulator's type, so that a tap is one load.
// A channel multiplier spreads input channels over lanes in forward; grad_input gathers them with a stride.
// Bound: bytes for 3x3, FMA from 5x5 on.

template <class T>
struct NhwcGather {
  using A = Acc<T>;
  using Problem = Gather<T>;
  static constexpr int L = kLanes<A>;

  // One row of results, the channels of one block.
  template <int S, Lanes kind>
  struct Row {
    const Problem& problem;
    const Channels<A>& channels;
    const A* packed;
    const T* source;  // the image
    T* result;        // the row
    const Lattice& rows;
    const Lattice& cols;
    int64_t source_row;  // of tap 0
    Range taps;          // the rows of taps that lie inside
    int64_t block;

    template <int R>
    struct Tile {
      const Row& row;
      const A* filter;  // this vector's lane of the packed weights of the tap row
      const T* pixels;  // the source row
      int64_t channel, j;
      Mask<A> mask;
      Vec<A> (&acc)[R];

      template <int NT>
      DWCONV_INLINE_MEMBER void piece(int64_t t) const {
        const Problem& problem = row.problem;
        const Lattice& cols = row.cols;
        const int64_t col = cols.source + cols.source_period * j + cols.tap_step * t;
        const Range range = inside(col, cols.tap_step, problem.cols.sources);
        Vec<A> weight[NT];
        DWCONV_UNROLL
        for (int i = 0; i < NT; ++i) {
          weight[i] = load(filter + (cols.k + cols.k_step * (t + i)) * row.channels.pitch());
        }
        const auto positions = pixel_source<T, kind>(pixels + col * problem.source_channels,
                                                     cols.tap_step * problem.source_channels, channel, mask, problem.M);
        correlate<ToResults, R, NT, S>(acc, weight, positions, range);
      }
    };

    template <int R>
    DWCONV_INLINE_MEMBER void tile(int64_t j) const {
      for (int64_t v = channels.begin(block); v < channels.end(block); ++v) {
        const Mask<A> mask = channels.mask(v);
        Vec<A> acc[R];
        const Vec<A> initial = problem.bias ? load(problem.bias + v * L, mask) : Vec<A>{};
        DWCONV_UNROLL
        for (int r = 0; r < R; ++r) acc[r] = initial;
        for (int64_t f = 0; f < problem.fan_in; ++f) {
          const A* filters = packed + f * problem.taps * channels.pitch() + v * L;
          for (int64_t t = taps.lo; t < taps.hi; ++t) {
            const A* filter = filters + (rows.k + rows.k_step * t) * problem.cols.kernel * channels.pitch();
            const T* pixels =
                source + f + (source_row + rows.tap_step * t) * problem.cols.sources * problem.source_channels;
            if constexpr (kSumsByRow<A>) {
              Vec<A> sums[R] = {};
              for_pieces(Tile<R>{*this, filter, pixels, first_channel(v), j, mask, sums}, cols.taps);
              DWCONV_UNROLL
              for (int r = 0; r < R; ++r) acc[r] += sums[r];
            } else {
              for_pieces(Tile<R>{*this, filter, pixels, first_channel(v), j, mask, acc}, cols.taps);
            }
          }
        }
        activate<A>(acc, problem.activation);
        DWCONV_UNROLL
        for (int r = 0; r < R; ++r) {
          store(result + (cols.first + cols.period * (j + r)) * problem.channels + v * L, acc[r], mask);
        }
      }
    }

    // Where the vector's source channels begin; f comes on top.
    DWCONV_INLINE_MEMBER int64_t first_channel(int64_t v) const {
      return problem.transposed ? v * L * problem.M : v * L;
    }
  };

  static Channels<A> channels_of(const Problem& problem) { return {problem.channels, problem.taps}; }

  static int64_t bands_of_image(const Problem& problem, const Channels<A>& channels) {
    return bands(problem.rows.results, 4, problem.images * channels.blocks());
  }

  static int64_t workspace_bytes(Operation operation, const Shape& shape) {
    const Problem problem(operation, shape, {});
    return problem.fan_in * problem.taps * channels_of(problem).pitch() * int64_t(sizeof(A));
  }

  // Stage 1, an item a vector of channels: packed[f][tap][channel], zero past the last channel.
  static int64_t pack_items(Operation operation, const Shape& shape) {
    return channels_of(Problem(operation, shape, {})).vectors;
  }

  static void pack(Operation operation, const Shape& shape, const Buffers& buffers, int64_t begin, int64_t end) {
    const Problem problem(operation, shape, buffers);
    const Channels<A> channels = channels_of(problem);
    A* packed = static_cast<A*>(buffers.workspace);
    for (int64_t f = 0; f < problem.fan_in; ++f) {
      for (int64_t v = begin; v < end; ++v) {
        const T* filters = problem.weight + problem.filter(v * L, f) * problem.taps;
        for (int64_t tap = 0; tap < problem.taps; ++tap) {
          store(packed + (f * problem.taps + tap) * channels.pitch() + v * L,
                load_lanes(filters + tap, problem.taps * problem.fan_in, channels.mask(v)));
        }
      }
    }
  }

  // Stage 2, an item a band of rows of an image for a block of channels.
  static int64_t items(Operation operation, const Shape& shape) {
    const Problem problem(operation, shape, {});
    const Channels<A> channels = channels_of(problem);
    return problem.images * bands_of_image(problem, channels) * channels.blocks();
  }

  static void run(Operation operation, const Shape& shape, const Buffers& buffers, int64_t begin, int64_t end) {
    const Problem problem(operation, shape, buffers);
    const Channels<A> channels = channels_of(problem);
    const Rows rows(problem, channels, static_cast<const A*>(buffers.workspace));
    const int64_t parts = bands_of_image(problem, channels), length = ceil_div(problem.rows.results, parts);
    for (int64_t item = begin; item < end; ++item) {
      const int64_t block = item % channels.blocks(), band = item / channels.blocks() % parts;
      const int64_t n = item / channels.blocks() / parts;
      const int64_t last = std::min(problem.rows.results, (band + 1) * length);
      for (int64_t o = band * length; o < last; ++o) rows.row(n, o, block);
    }
  }

  // Computes rows of results, one at a time.
  struct Rows {
    const Problem& problem;
    const Channels<A>& channels;
    const A* packed;
    Lattices rows, cols;

    Rows(const Problem& problem_, const Channels<A>& channels_, const A* packed_)
        : problem(problem_),
          channels(channels_),
          packed(packed_),
          rows(problem_.rows, false),
          cols(problem_.cols, true) {}

    // Row o of image n, for one block of channels.
    void row(int64_t n, int64_t o, int64_t block) const {
      Lattice row_spare, col_spare;
      const Lattice& lattice = rows.at(o % rows.count(), row_spare);
      const int64_t source_row = lattice.source + lattice.source_period * (o / rows.count());
      Range taps = inside(source_row, lattice.tap_step, problem.rows.sources);
      taps.hi = std::min(taps.hi, lattice.taps);
      T* result = problem.result + (n * problem.rows.results + o) * problem.cols.results * problem.channels;
      for (int64_t i = 0; i < cols.count(); ++i) {
        const Lattice& lattice_of_cols = cols.at(i, col_spare);
        const int64_t reuse = lattice_of_cols.reuse();
        const auto walk = problem.M > 1 ? (problem.transposed ? spread<Lanes::strided> : spread<Lanes::repeated>)(reuse)
                          : reuse == 1  ? tiles<1, Lanes::contiguous>
                          : reuse == 2  ? tiles<2, Lanes::contiguous>
                                        : tiles<0, Lanes::contiguous>;
        walk(*this, problem.source_image(n), result, lattice, lattice_of_cols, source_row, taps, block);
      }
    }

    template <int S, Lanes kind>
    static void tiles(const Rows& all, const T* source, T* result, const Lattice& rows, const Lattice& cols,
                      int64_t source_row, Range taps, int64_t block) {
      const Row<S, kind> row{all.problem, all.channels, all.packed, source, result,
                             rows,        cols,         source_row, taps,   block};
      for_tiles<S, true>(row, 0, cols.count);
    }

    // For a channel multiplier.
    template <Lanes kind>
    static auto spread(int64_t reuse) {
      return reuse == 1 ? tiles<1, kind> : tiles<0, kind>;
    }
  };
};

template <class T, Operation operation>
struct NhwcGatherKernel {
  using Body = NhwcGather<T>;
  static int64_t pack_items(const Shape& shape) { return Body::pack_items(operation, shape); }
  static void pack(const Shape& shape, const Buffers& buffers, int64_t begin, int64_t end) {
    Body::pack(operation, shape, buffers, begin, end);
  }
  static int64_t items(const Shape& shape) { return Body::items(operation, shape); }
  static void run(const Shape& shape, const Buffers& buffers, int64_t begin, int64_t end) {
    Body::run(operation, shape, buffers, begin, end);
  }
  static const char* supports(const Shape&) { return nullptr; }
  static int64_t workspace_bytes(const Shape& shape) { return Body::workspace_bytes(operation, shape); }
  static constexpr Stage stages[] = {{pack_items, pack}, {items, run}};
};
template <class T>
using NhwcForward = NhwcGatherKernel<T, Operation::forward>;
template <class T>
using NhwcGradInput = NhwcGatherKernel<T, Operation::grad_input>;
