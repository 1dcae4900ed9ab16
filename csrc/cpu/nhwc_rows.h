// One row of results in NHWC, or two neighbours in their lattice, covered with tiles.

// Results of a row in a tile: 2*kMost sums and the taps of a row stay in registers where there are 32 of them.
constexpr int kMost = kVecBytes == 64 ? 7 : 4, kSome = 4;

// Whether neighbours that share sources are computed together: not where a dilation leaves few of them in a row.
static inline bool share_columns(const Axis& axis) {
  Lattice spare;
  const Lattices fine(axis, true);
  return fine.count() == residues(axis) || fine.at(0, spare).count >= kSome;
}

template <class T>
struct NhwcRows {
  using A = Acc<T>;
  using Loop = void (*)(const Tile<T>&);
  static constexpr int L = kLanes<A>;

  const Gather<T>& problem;
  const Lattice& rows;
  const Lattices& columns;
  const A* packed;  // of the block of channels
  int64_t n, j;     // result row j of the lattice and its neighbour, in image n

  void compute(const Tile<T>& common) const {
    Tile<T> tile = common;
    const int64_t channels = problem.channels;
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
    const A* taps = packed + taps_before(problem.rows, rows) * problem.cols.kernel * L;
    Lattice spare[2];
    for (int64_t i = 0; i < columns.count();) {
      const Line line(problem, rows, columns.at(i, spare[0]), source, result, taps, tile);
      if (problem.cols.transposed && columns.count() == 2) {
        // Results of the two lattices alternate: by turns, so that a line of memory is written in one go.
        const Line other(problem, rows, columns.at(1, spare[1]), source, result, taps, tile);
        for (int64_t at = 0; at < line.cols.count; at += kMost) line.walk(at, at + kMost), other.walk(at, at + kMost);
        return;
      }
      line.walk(0, line.cols.count), ++i;
    }
  }

  // The results of one column lattice.
  struct Line {
    const Lattice& cols;
    int64_t channels;
    const T* source;
    T* result;
    mutable Tile<T> tile;
    int64_t shared;  // positions from one result to the next, if they share some and there is a loop for that; or 0
    Loop most, some;

    Line(const Gather<T>& problem, const Lattice& rows, const Lattice& cols_, const T* source_, T* result_,
         const A* taps, const Tile<T>& tile_)
        : cols(cols_), channels(problem.channels), source(source_), result(result_), tile(tile_) {
      tile.taps = cols.taps;
      tile.pitch = cols.tap_step * channels;
      tile.result_pitch = cols.period * channels;
      tile.step = cols.tap_step, tile.period = cols.source_period;
      tile.packed = taps + taps_before(problem.cols, cols) * rows.taps * L;
      shared = cols.source_period % cols.tap_step == 0 && cols.reuse() <= 2 ? cols.reuse() : 0;
      most = shared == 1 ? loop<kMost, 1>() : loop<kMost, 2>();
      some = shared == 1 ? loop<kSome, 1>() : loop<kSome, 2>();
    }

    // The loop for tiles that fit.
    template <int R, int S>
    Loop loop() const {
      using Body = NhwcTile<T, R, S>;
      const int64_t taps = tile.taps;
      if (tile.row_shift == S) {
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
      if constexpr (R == kMost) {
        if (taps == 3) return Body::template rolled<3>;
        if (taps == 5) return Body::template rolled<5>;
        if constexpr (S == 1) {
          if (taps == 1) return Body::template rolled<1>;
          if (taps == 7) return Body::template rolled<7>;
        }
      }
      return Body::template rolled<0>;
    }

    // Tiles that cover results [j, end) of the line. The last one may start early and compute results twice, to the same
    // bits; `j` is a multiple of kMost.
    void walk(int64_t j, int64_t end) const {
      const int64_t count = cols.count;
      end = std::min(end, count);
      while (j < end) {
        const int64_t left = count - j;
        if (count >= kMost && (left > kSome || kMost == kSome)) {
          j = std::min(j, count - kMost);
          shared == 0 ? apart(j) : shared == 1 ? tile_of<kMost, 1>(most, j) : tile_of<kMost, 2>(most, j);
          j += kMost;
        } else if (count >= kSome && shared != 0) {
          j = std::min(j, count - kSome);
          shared == 1 ? tile_of<kSome, 1>(some, j) : tile_of<kSome, 2>(some, j);
          j += kSome;
        } else {
          tile_of<1, 1>(NhwcTile<T, 1, 1>::template rolled<0>, j), ++j;
        }
      }
    }

    template <int R, int S>
    void tile_of(Loop loop, int64_t j) const {
      place(j);
      NhwcTile<T, R, S>::fits(tile) ? loop(tile) : NhwcTile<T, R, S>::template rolled<0>(tile);
    }

    void apart(int64_t j) const {
      using Body = NhwcTile<T, kMost, 1>;
      if (tile.taps > Body::kTaps) {
        for (int r = 0; r < kMost; ++r) tile_of<1, 1>(NhwcTile<T, 1, 1>::template rolled<0>, j + r);
        return;
      }
      place(j);
      const Tile<T> both = tile;
      tile.count = 1;
      for (int64_t r = 0; r < both.count; ++r) {
        Body::unshared(tile);
        tile.source += tile.row_shift * tile.row_pitch, tile.result += tile.result_row_pitch;
        tile.top -= tile.row_shift, tile.bottom -= tile.row_shift;
      }
      tile = both;
    }

    void place(int64_t j) const {
      tile.column = cols.source + cols.source_period * j;
      const Range range = inside(tile.column, cols.tap_step, tile.width);
      tile.lo = range.lo, tile.hi = range.hi;
      tile.source = source + tile.column * channels;
      tile.result = result + (cols.first + cols.period * j) * channels;
    }
  };
};
