// grad_weight and the bias gradient, channels last (NHWC), any geometry.
//
// Method: as in nhwc_gather.h a vector runs over channels and a tile goes along R pixels of a row of grad_output, which
// stay in registers; for each row of taps the tile walks the input pixels and adds into one accumulator vector per tap.
// The accumulators of a block of channels live in L1. They are flushed into the chunk's partial sums before one has
// added much more than kChain products; a last stage adds the chunks, groups of rows, in order and in f64.
// Bound: FMA, and the accumulators' way through L1 at 3x3.

template <class T>
struct NhwcGradWeight {
  using A = Acc<T>;
  static constexpr int L = kLanes<A>;
  static constexpr int kRows = 7;    // rows of taps in a block of taps
  static constexpr int kWidest = 7;  // of a piece
  static constexpr int kAccumulators = 16384 / kVecBytes;
  static constexpr int64_t kChain = 72 * kTile;

  struct Problem {
    const T* input;
    const T* grad_output;
    A* partial;  // [chunk][vector][tap, bias last][lane]
    bool with_bias;
    int64_t images, M, taps;
    Axis rows, cols;
    Channels<A> channels;

    Problem(const Shape& s, const Buffers& b)
        : input(static_cast<const T*>(b.input)),
          grad_output(static_cast<const T*>(b.grad_output)),
          partial(static_cast<A*>(b.workspace)),
          with_bias(b.grad_bias != nullptr),
          images(s.N),
          M(s.M),
          taps(s.taps()),
          rows(vertical_axis(Map::grad_weight, s)),
          cols(horizontal_axis(Map::grad_weight, s)),
          channels(s.out_channels(), std::min<int64_t>(s.KH, kRows) * std::min<int64_t>(s.KW, kWidest)) {}

    int64_t tap_rows() const { return std::min<int64_t>(rows.kernel, kRows); }  // in a block of taps

    int64_t all_rows() const { return images * rows.results; }
    // Enough for many threads, each with pixels enough to be worth its partial sums.
    int64_t chunks() const {
      const int64_t worthwhile = std::min(all_rows(), all_rows() * cols.results / 256);
      return std::max<int64_t>(1, std::min(ceil_div(32, std::max<int64_t>(channels.blocks(), 1)), worthwhile));
    }
    int64_t rows_per_chunk() const { return ceil_div(all_rows(), chunks()); }
    A* sums(int64_t chunk, int64_t tap, int64_t vector) const {
      return partial + ((chunk * channels.vectors + vector) * (taps + 1) + tap) * L;
    }
  };

  // Along one row of grad_output: NT taps from t on of the rows of taps `inner`, for one block of channels.
  template <int S, Lanes kind, int NT>
  struct Row {
    const Problem& problem;
    const T* input;        // the input row of tap row 0
    const T* grad_output;  // the row
    const Lattice& rows;
    const Lattice& cols;
    Range inner;
    int64_t first_tap_row, t, block;
    Vec<A> (*acc)[NT];  // [vector][problem.tap_rows()]

    template <int R>
    DWCONV_INLINE_MEMBER void tile(int64_t j) const {
      const int64_t in_channels = problem.channels.count / problem.M;
      const int64_t col = cols.source + cols.source_period * j + cols.tap_step * t;
      const Range range = inside(col, cols.tap_step, problem.cols.sources);
      for (int64_t v = problem.channels.begin(block); v < problem.channels.end(block); ++v) {
        const Mask<A> mask = problem.channels.mask(v);
        Vec<A> grad[R];
        DWCONV_UNROLL
        for (int r = 0; r < R; ++r) {
          grad[r] = load(grad_output + (cols.first + cols.period * (j + r)) * problem.channels.count + v * L, mask);
        }
        Vec<A>(*sums)[NT] = acc + (v - problem.channels.begin(block)) * problem.tap_rows() - first_tap_row;
        for (int64_t k = inner.lo; k < inner.hi; ++k) {
          const T* pixels = input + (rows.tap_step * k * problem.cols.sources + col) * in_channels;
          const auto positions = pixel_source<T, kind>(pixels, cols.tap_step * in_channels, v * L, mask, problem.M);
          correlate<ToTaps, R, NT, S>(sums[k], grad, positions, range);
        }
      }
    }
  };

  // The rows [begin, end) of all images, for one block of channels.
  template <int S, Lanes kind>
  struct Chunk {
    const Problem& problem;
    int64_t chunk, begin, end, block;

    template <int NT>
    DWCONV_INLINE_MEMBER void piece(int64_t t) const {
      for (int64_t k = 0; k < problem.rows.kernel; k += kRows) block_of_taps<NT>(t, k);
    }

    template <int NT>
    void block_of_taps(int64_t t, int64_t first_tap_row) const {
      const Lattice rows = residue(problem.rows, 0);
      const Lattices all_cols(problem.cols, true);
      const int64_t last_tap_row = std::min(problem.rows.kernel, first_tap_row + kRows);
      Vec<A> acc[kAccumulators / NT][NT];
      clear<NT>(acc);
      const int64_t height = std::max<int64_t>(1, problem.rows.results);
      const int64_t input_pitch = problem.cols.sources * (problem.channels.count / problem.M);
      const int64_t grad_pitch = problem.cols.results * problem.channels.count;
      const T* input = problem.input;
      const T* grad_output = problem.grad_output;
      int64_t chain = 0;
      for (int64_t i = 0; i < all_cols.count(); ++i) {
        Lattice spare;
        const Lattice& cols = all_cols.at(i, spare);
        for (int64_t row = begin, n = begin / height, o = begin % height; row < end; ++row) {
          const int64_t source_row = rows.source + rows.source_period * o;
          Range inner = inside(source_row, rows.tap_step, problem.rows.sources);
          inner = {std::max(inner.lo, first_tap_row), std::min(inner.hi, last_tap_row)};
          const Row<S, kind, NT> tiles{problem,
                                       input + (n * problem.rows.sources + source_row) * input_pitch,
                                       grad_output + row * grad_pitch,
                                       rows,
                                       cols,
                                       inner,
                                       first_tap_row,
                                       t,
                                       block,
                                       acc};
          for (int64_t first = 0; first < cols.count; first += kChain) {
            const int64_t last = std::min(cols.count, first + kChain);
            for_tiles<S, false>(tiles, first, last);
            chain += last - first;
            if (chain >= kChain) {
              flush<NT>(acc, t, first_tap_row, last_tap_row);
              chain = 0;
            }
          }
          if (++o == height) o = 0, ++n;
        }
      }
      flush<NT>(acc, t, first_tap_row, last_tap_row);
    }

    template <int NT>
    void clear(Vec<A> (*acc)[NT]) const {
      const int64_t vectors = problem.channels.end(block) - problem.channels.begin(block);
      std::fill_n(&acc[0][0], vectors * problem.tap_rows() * NT, Vec<A>{});
    }

    template <int NT>
    void flush(Vec<A> (*acc)[NT], int64_t t, int64_t first_tap_row, int64_t last_tap_row) const {
      for (int64_t v = problem.channels.begin(block); v < problem.channels.end(block); ++v) {
        for (int64_t k = first_tap_row; k < last_tap_row; ++k) {
          const Vec<A>* row = acc[(v - problem.channels.begin(block)) * problem.tap_rows() + k - first_tap_row];
          for (int i = 0; i < NT; ++i) {
            A* sums = problem.sums(chunk, k * problem.cols.kernel + t + i, v);
            store(sums, load(sums) + row[i]);
          }
        }
      }
      clear<NT>(acc);
    }
  };

  // The bias gradient's part of a chunk.
  static void add_rows(const Problem& problem, int64_t chunk, int64_t begin, int64_t end, int64_t block) {
    const int64_t channels = problem.channels.count, pixels = (end - begin) * problem.cols.results;
    const T* grad_output = problem.grad_output + begin * problem.cols.results * channels;
    for (int64_t v = problem.channels.begin(block); v < problem.channels.end(block); ++v) {
      A* sums = problem.sums(chunk, problem.taps, v);
      for (int64_t first = 0; first < pixels; first += kChain) {
        const int64_t last = std::min(pixels, first + kChain);
        Vec<A> acc = {};
        for (int64_t i = first; i < last; ++i)
          acc += load(grad_output + i * channels + v * L, problem.channels.mask(v));
        store(sums, load(sums) + acc);
      }
    }
  }

  static int64_t workspace_bytes(const Shape& shape) {
    const Problem problem(shape, {});
    return problem.chunks() * (problem.taps + 1) * problem.channels.pitch() * int64_t(sizeof(A));
  }

  // Stage 1, an item a chunk of rows for one block of channels.
  static int64_t items(const Shape& shape) {
    const Problem problem(shape, {});
    return problem.chunks() * problem.channels.blocks();
  }

  template <int S, Lanes kind>
  static void accumulate(const Problem& problem, int64_t chunk, int64_t begin, int64_t end, int64_t block) {
    for_pieces(Chunk<S, kind>{problem, chunk, begin, end, block}, problem.cols.kernel);
  }

  static void run(const Shape& shape, const Buffers& buffers, int64_t begin, int64_t end) {
    const Problem problem(shape, buffers);
    for (int64_t item = begin; item < end; ++item) {
      const int64_t block = item % problem.channels.blocks(), chunk = item / problem.channels.blocks();
      const int64_t first = chunk * problem.rows_per_chunk();
      const int64_t last = std::min(problem.all_rows(), first + problem.rows_per_chunk());
      const int64_t vectors = problem.channels.end(block) - problem.channels.begin(block);
      std::fill_n(problem.sums(chunk, 0, problem.channels.begin(block)), vectors * (problem.taps + 1) * L, A(0));
      add(problem, chunk, first, last, block);
    }
  }

  // Adds the rows [first, last) of all images, counted on, to the sums of a chunk for one block of channels.
  static void add(const Problem& problem, int64_t chunk, int64_t first, int64_t last, int64_t block) {
    const int64_t reuse = refine(residue(problem.cols, 0), 0).reuse();
    const auto walk = problem.M > 1 ? (reuse == 1 ? accumulate<1, Lanes::repeated> : accumulate<0, Lanes::repeated>)
                      : reuse == 1  ? accumulate<1, Lanes::contiguous>
                      : reuse == 2  ? accumulate<2, Lanes::contiguous>
                                    : accumulate<0, Lanes::contiguous>;
    walk(problem, chunk, first, last, block);
    if (problem.with_bias) add_rows(problem, chunk, first, last, block);
  }

  // Stage 2, an item a vector of channels: add the chunks up and lay the taps out by channel.
  static int64_t finish_items(const Shape& shape) { return Problem(shape, {}).channels.vectors; }

  static void finish(const Shape& shape, const Buffers& buffers, int64_t begin, int64_t end) {
    const Problem problem(shape, buffers);
    add_chunks_up(problem, problem.chunks(), buffers, begin, end);
  }

  template <class Result = T>
  static void add_chunks_up(const Problem& problem, int64_t chunks, const Buffers& buffers, int64_t begin,
                            int64_t end) {
    for (int64_t v = begin; v < end; ++v) {
      const int64_t count = problem.channels.mask(v).hi;
      for (int64_t tap = 0; tap < problem.taps + problem.with_bias; ++tap) {
        double total[L] = {};
        for (int64_t chunk = 0; chunk < chunks; ++chunk) {
          const A* sums = problem.sums(chunk, tap, v);
          for (int i = 0; i < L; ++i) total[i] += sums[i];
        }
        for (int64_t i = 0; i < count; ++i) {
          const int64_t channel = v * L + i;
          if (tap < problem.taps) {
            from_acc(A(total[i]), static_cast<Result*>(buffers.result) + channel * problem.taps + tap);
          } else {
            from_acc(A(total[i]), static_cast<Result*>(buffers.grad_bias) + channel);
          }
        }
      }
    }
  }

  static const char* supports(const Shape&) { return nullptr; }
  static constexpr Stage stages[] = {{items, run}, {finish_items, finish}};
};
