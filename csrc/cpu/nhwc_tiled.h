// forward and grad_input, channels last (NHWC), at least a vector of channels and no multiplier.
//
// Method: tiles of two rows by up to seven results (nhwc_tile.h), all channels of a block inside a tile. A first stage packs
// the weights in the accumulator's type and in the order in which the tiles read them, so that a tap is one load at a fixed
// place. Where C is no multiple of the vector, the last vector starts early: no load or store is masked.
// Bound: FMA in the caches, bytes beyond them for 3x3.

template <class T>
struct NhwcTiled {
  using A = Acc<T>;
  using Problem = Gather<T>;
  using Loop = void (*)(const Tile<T>&);
  static constexpr int L = kLanes<A>;

  // Vectors of channels in blocks. The taps of a block fill part of L1; so do its pixels of a few rows where an image comes
  // from L2, while pixels from beyond are better read whole. A block has two vectors at least, if there are as many: the
  // last one may start early, inside the one before, and no two items may write the same channels.
  struct Blocks {
    int64_t vectors, count;
    explicit Blocks(const Problem& problem) : vectors(ceil_div(problem.channels, L)) {
      constexpr int64_t kTapBytes = 16384, kImageBytes = 2 << 20, kVectors = 6;
      const int64_t pixels = problem.rows.sources * problem.cols.sources + problem.rows.results * problem.cols.results;
      const int64_t vectors_of_taps = kTapBytes / (kVecBytes * std::max<int64_t>(1, problem.taps));
      const bool small = pixels * problem.channels * int64_t(sizeof(T)) <= kImageBytes;
      const int64_t most = std::max<int64_t>(1, small ? std::min(kVectors, vectors_of_taps) : vectors_of_taps);
      count = std::clamp<int64_t>(ceil_div(vectors, most), 1, std::max<int64_t>(1, vectors / 2));
    }
    int64_t begin(int64_t b) const { return vectors * b / count; }
  };

  // Rows of results in pairs of neighbours in a refined lattice; the lattices take turns.
  static int64_t pairs_of(const Lattices& rows) {
    Lattice spare;
    int64_t most = 0;
    for (int64_t i = 0; i < rows.count(); ++i) most = std::max(most, rows.at(i, spare).count);
    return rows.count() * ceil_div(most, 2);
  }
  static int64_t bands_of(const Problem& problem, const Blocks& blocks, int64_t pairs) {
    return bands(pairs, 2, problem.images * blocks.count);
  }

  static int64_t workspace_bytes(Map map, const Shape& shape) {
    const Problem problem(map, shape, {});
    return Blocks(problem).vectors * problem.taps * kVecBytes;
  }

  // Stage 1, an item a vector of channels: packed [vector][row lattice][column lattice][row][tap][lane].
  static int64_t pack_items(Map map, const Shape& shape) { return Blocks(Problem(map, shape, {})).vectors; }

  // Where a row or column k of taps is packed: place t among the `taps` of its residue, which follow `before` others.
  struct Place {
    int64_t before = 0, t = 0, taps = 0;
    Place() = default;
    Place(const Axis& axis, int64_t k) : t(k), taps(axis.kernel) {
      if (!axis.transposed) return;
      for (int64_t r = 0;; ++r) {
        const Lattice lattice = residue(axis, r);
        taps = lattice.taps;
        if (taps > 0 && (lattice.k - k) % lattice.k_step == 0) {
          t = (lattice.k - k) / -lattice.k_step;
          return;
        }
        before += taps;
      }
    }
  };

  // The places of all taps, of columns kept.
  class Places {
   public:
    explicit Places(const Problem& problem) : rows_(problem.rows), cols_(problem.cols) {
      for (int64_t k = 0; k < std::min(kKept, cols_.kernel); ++k) kept_[k] = Place(cols_, k);
    }
    int64_t operator()(int64_t tap) {
      if (!rows_.transposed) return tap;
      const int64_t kh = tap / cols_.kernel, kw = tap % cols_.kernel;
      if (kh != kh_) row_ = Place(rows_, kh), kh_ = kh;
      const Place col = kw < kKept ? kept_[kw] : Place(cols_, kw);
      return row_.before * cols_.kernel + row_.taps * col.before + row_.t * col.taps + col.t;
    }

   private:
    static constexpr int64_t kKept = 32;
    Axis rows_, cols_;
    int64_t kh_ = -1;
    Place row_, kept_[kKept];
  };

  static void pack(Map map, const Shape& shape, const Buffers& buffers, int64_t begin, int64_t end) {
    const Problem problem(map, shape, buffers);
    Places places(problem);
    for (int64_t v = begin; v < end; ++v) {
      const T* filters = problem.weight + std::min(v * L, problem.channels - L) * problem.taps;
      A* packed = static_cast<A*>(buffers.workspace) + v * problem.taps * L;
      for (int64_t tap = 0; tap < problem.taps; tap += L) {
        const Mask<A> mask = lanes<A>(0, problem.taps - tap);
        Vec<A> rows[L];
        for (int l = 0; l < L; ++l) rows[l] = load(filters + l * problem.taps + tap, mask);
        transpose_lanes<A>(rows);
        for (int l = 0; l < mask.hi; ++l) store(packed + places(tap + l) * L, rows[l]);
      }
    }
  }

  // Stage 2, an item a band of pairs of rows of an image for a block of channels.
  static int64_t items(Map map, const Shape& shape) {
    const Problem problem(map, shape, {});
    const Blocks blocks(problem);
    return problem.images * bands_of(problem, blocks, pairs_of(Lattices(problem.rows, true))) * blocks.count;
  }

  static void run(Map map, const Shape& shape, const Buffers& buffers, int64_t begin, int64_t end) {
    const Problem problem(map, shape, buffers);
    const Blocks blocks(problem);
    const Lattices rows(problem.rows, true), cols(problem.cols, refined(problem.cols));
    const int64_t pairs = pairs_of(rows), parts = bands_of(problem, blocks, pairs);
    Tile<T> tile;
    tile.bias = problem.bias;
    tile.activation = problem.activation;
    tile.vector_taps = problem.taps * L;
    tile.most = problem.channels - L;
    tile.width = problem.cols.sources;
    for (int64_t item = begin; item < end; ++item) {
      const int64_t block = item % blocks.count, band = item / blocks.count % parts, n = item / blocks.count / parts;
      tile.begin = blocks.begin(block) * L, tile.end = blocks.begin(block + 1) * L;
      const A* packed = static_cast<const A*>(buffers.workspace) + tile.begin * problem.taps;
      for (int64_t pair = pairs * band / parts; pair < pairs * (band + 1) / parts; ++pair) {
        pair_of_rows({problem, rows, cols, packed}, n, pair, tile);
      }
    }
  }

  // Whether results that share sources are computed together: not where a dilation leaves few of them in a row.
  static bool refined(const Axis& axis) {
    Lattice spare;
    const Lattices fine(axis, true);
    return fine.count() == residues(axis) || fine.at(0, spare).count >= 4;
  }

  struct Image {
    const Problem& problem;
    const Lattices& rows;
    const Lattices& cols;
    const A* packed;
  };

  static void pair_of_rows(const Image& image, int64_t n, int64_t pair, Tile<T>& tile) {
    const Problem& problem = image.problem;
    Lattice spare, spare_cols;
    const Lattice& rows = image.rows.at(pair % image.rows.count(), spare);
    const int64_t j = pair / image.rows.count() * 2;
    if (j >= rows.count) return;
    const int64_t channels = problem.channels, KW = problem.cols.kernel;
    const int64_t source_row = problem.cols.sources * channels, result_row = problem.cols.results * channels;
    const int64_t base = rows.source + rows.source_period * j;
    const Range range = inside(base, rows.tap_step, problem.rows.sources);
    tile.count = std::min<int64_t>(2, rows.count - j);
    tile.top = range.lo, tile.bottom = range.hi;
    tile.row_taps = rows.taps;
    tile.row_shift = rows.reuse();
    tile.row_pitch = rows.tap_step * source_row;
    tile.result_row_pitch = rows.period * result_row;
    const T* source = problem.source_image(n) + base * source_row;
    T* result = problem.result + (n * problem.rows.results + rows.first + rows.period * j) * result_row;
    const A* packed = image.packed + before(problem.rows, rows) * KW * L;
    for (int64_t i = 0; i < image.cols.count(); ++i) {
      const Lattice& cols = image.cols.at(i, spare_cols);
      tile.taps = cols.taps;
      tile.pitch = cols.tap_step * channels;
      tile.result_pitch = cols.period * channels;
      tile.step = cols.tap_step, tile.period = cols.source_period;
      tile.packed = packed + before(problem.cols, cols) * rows.taps * L;
      const Row row{problem, cols, source, result, tile};
      const bool shared = cols.source_period % cols.tap_step == 0;
      if (shared && cols.reuse() == 1) {
        row.template walk<1>();
      } else if (shared && cols.reuse() == 2) {
        row.template walk<2>();
      } else {
        row.walk_unshared();
      }
    }
  }

  // Taps of an axis that are packed before those of a lattice.
  static int64_t before(const Axis& axis, const Lattice& lattice) {
    return lattice.taps > 0 ? Place(axis, lattice.k).before : 0;
  }

  // One row of results or two, from one row of the source on.
  struct Row {
    const Problem& problem;
    const Lattice& cols;
    const T* source;
    T* result;
    Tile<T>& tile;

    // Tiles that cover the row; the last may start early and compute results twice, to the same bits.
    template <int S>
    void walk() const {
      const Loop most = loop<kMost, S>(), some = loop<kSome, S>();
      const int64_t count = cols.count;
      for (int64_t j = 0; j < count;) {
        const int64_t left = count - j;
        if (left >= kMost - 1 && count >= kMost) {
          j = std::min(j, count - kMost);
          compute<kMost, S>(most, j), j += kMost;
        } else if (kSome > 1 && left >= 2 && count >= kSome) {
          j = std::min(j, count - kSome);
          compute<kSome, S>(some, j), j += kSome;
        } else {
          compute<1, 1>(NhwcTile<T, 1, 1>::template rolled<0>, j), ++j;
        }
      }
    }

    // The loop for tiles that fit.
    template <int R, int S>
    Loop loop() const {
      using Body = NhwcTile<T, R, S>;
      const int64_t taps = tile.taps;
      if (R > 1 && tile.count == 2 && tile.row_shift == S) {
        if (tile.row_taps == 3 && taps == 3) return Body::template unrolled<3, 3>;
        if constexpr (R == kMost) {
          if (tile.row_taps == 5 && taps == 5) return Body::template unrolled<5, 5>;
        }
        if constexpr (S == 1) {
          if (tile.row_taps == 1 && taps == 1) return Body::template unrolled<1, 1>;
          if (tile.row_taps == 1 && taps == 2) return Body::template unrolled<1, 2>;
          if (tile.row_taps == 2 && taps == 1) return Body::template unrolled<2, 1>;
          if (tile.row_taps == 2 && taps == 2) return Body::template unrolled<2, 2>;
        }
      }
      if constexpr (R == kMost && S == 1) {
        if (taps == 7) return Body::template rolled<7>;
      }
      return Body::template rolled<0>;
    }

    template <int R, int S>
    void compute(Loop loop, int64_t j) const {
      place(j);
      NhwcTile<T, R, S>::fits(tile) ? loop(tile) : NhwcTile<T, R, S>::template rolled<0>(tile);
    }

    void walk_unshared() const {
      using Body = NhwcTile<T, kMost, 1>;
      using One = NhwcTile<T, 1, 1>;
      int64_t j = 0;
      if (tile.taps <= Body::kTaps && cols.count >= kMost) {
        const int64_t rows = tile.count;
        const Tile<T> both = tile;
        tile.count = 1;
        for (int64_t r = 0; r < rows; ++r) {
          for (j = 0; j < cols.count; j += kMost) {
            j = std::min(j, cols.count - kMost);
            place(j);
            tile.source += r * tile.row_shift * tile.row_pitch, tile.result += r * tile.result_row_pitch;
            Body::unshared(tile);
          }
          tile.top -= tile.row_shift, tile.bottom -= tile.row_shift;
        }
        tile = both;
      }
      for (; j < cols.count; ++j) place(j), One::template rolled<0>(tile);
    }

    void place(int64_t j) const {
      tile.column = cols.source + cols.source_period * j;
      const Range range = inside(tile.column, cols.tap_step, problem.cols.sources);
      tile.lo = range.lo, tile.hi = range.hi;
      tile.source = source + tile.column * problem.channels;
      tile.result = result + (cols.first + cols.period * j) * problem.channels;
    }
  };

  // Results of a row in a tile: 2*kMost sums and the taps of a row stay in registers where there are 32 of them.
  static constexpr int kMost = kVecBytes == 64 ? 7 : 4, kSome = kVecBytes == 64 ? 4 : 1;

  static const char* supports(Map, const Shape& shape) {
    if (shape.M != 1) return "there is a channel multiplier";
    if (shape.C < L) return "the channels do not fill a vector";
    return nullptr;
  }
};

template <class T, Map map>
struct NhwcTiledKernel {
  using Body = NhwcTiled<T>;
  static int64_t pack_items(const Shape& shape) { return Body::pack_items(map, shape); }
  static void pack(const Shape& shape, const Buffers& buffers, int64_t begin, int64_t end) {
    Body::pack(map, shape, buffers, begin, end);
  }
  static int64_t items(const Shape& shape) { return Body::items(map, shape); }
  static void run(const Shape& shape, const Buffers& buffers, int64_t begin, int64_t end) {
    Body::run(map, shape, buffers, begin, end);
  }
  static const char* supports(const Shape& shape) { return Body::supports(map, shape); }
  static int64_t workspace_bytes(const Shape& shape) { return Body::workspace_bytes(map, shape); }
  static constexpr Stage stages[] = {{pack_items, pack}, {items, run}};
};
template <class T>
using NhwcForwardTiled = NhwcTiledKernel<T, Map::forward>;
template <class T>
using NhwcGradInputTiled = NhwcTiledKernel<T, Map::grad_input>;
