// Rows of results in NHWC, one or two neighbours in their lattice at a time, covered with tiles. Part of a plan: it knows
// the axes of an image, not its channels.
#if defined(DWCONV_CPU_NHWC_TILE_ROWS_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_NHWC_TILE_ROWS_H
#undef DWCONV_CPU_NHWC_TILE_ROWS_H
#else
#define DWCONV_CPU_NHWC_TILE_ROWS_H
#endif

#include "packed_taps.h"
#include "tile.h"

DWCONV_BEGIN_TARGET

// Results of a row in a tile: 2*kMost sums and the taps of a row stay in registers where there are 32 of them.
constexpr int kMost = kVecBytes == 64 ? 7 : 4, kSome = 4;

// Whether neighbours that share sources are computed together: not where a dilation leaves few of them in a row.
static inline bool share_columns(const Axis& axis) {
  Lattice spare;
  const Lattices fine(axis, true);
  return fine.count() == residues(axis) || fine.at(0, spare).count >= kSome;
}

// The results of a row lattice and a column lattice: what is the same wherever in them a tile lies.
template <class T>
struct NhwcLine {
  using Loop = void (*)(const Tile<T>&);

  Lattice rows, cols;
  int64_t row_shift;  // source rows from one row of results to the next
  int64_t shared;     // positions from one result to the next, if they share some and there is a loop for that; or 0
  int64_t packed;     // taps that are packed before these
  Loop most, some;

  NhwcLine() = default;
  NhwcLine(const Axis& row_axis, const Axis& col_axis, const Lattice& rows_, const Lattice& cols_)
      : rows(rows_), cols(cols_) {
    row_shift = rows_.reuse();
    shared = cols_.source_period % cols_.tap_step == 0 && cols_.reuse() <= 2 ? cols_.reuse() : 0;
    packed = taps_before(row_axis, rows_) * col_axis.kernel + taps_before(col_axis, cols_) * rows_.taps;
    most = shared == 1 ? loop<kMost, 1>() : loop<kMost, 2>();
    some = shared == 1 ? loop<kSome, 1>() : loop<kSome, 2>();
  }

  // The loop for tiles that fit.
  template <int R, int S>
  Loop loop() const {
    using Body = NhwcTile<T, R, S>;
    const int64_t taps = cols.taps;
    if (row_shift == S) {
      if (rows.taps == 3 && taps == 3) return Body::template unrolled<3, 3>;
      if constexpr (R == kMost) {
        if (rows.taps == 5 && taps == 5) return Body::template unrolled<5, 5>;
      }
      if constexpr (S == 1) {
        if (rows.taps == 1 && taps == 1) return Body::template unrolled<1, 1>;
        if (rows.taps == 1 && taps == 2) return Body::template unrolled<1, 2>;
        if (rows.taps == 2 && taps == 1) return Body::template unrolled<2, 1>;
        if (rows.taps == 2 && taps == 2) return Body::template unrolled<2, 2>;
      }
    }
    if constexpr (R == kMost) {
      if (taps == 3) return Body::template rolled<3>;
      if (taps == 5) return Body::template rolled<5>;
      if constexpr (S == 1) {
        if (taps == 1) return Body::template rolled<1>;
        if (taps == 7) return Body::template rolled<7>;
        if constexpr (kVecBytes == 64 && sizeof(T) == 2) {
          if (taps >= NhwcLongRow<T, R>::kTaps) return Body::template rolled<Body::kManyTaps>;
        }
      }
    }
    return Body::template rolled<0>;
  }
};

template <class T>
class TileRows {
 public:
  using A = Acc<T>;
  using Loop = typename NhwcLine<T>::Loop;
  static constexpr int L = kLanes<A>;

  TileRows(const Axis& rows, const Axis& cols)
      : row_axis_(rows),
        col_axis_(cols),
        rows_(rows, true),
        columns_(cols, share_columns(cols)),
        kept_rows_(std::min(rows_.count(), kKept / columns_.count())) {
    Lattice spare;
    for (int64_t i = 0; i < rows_.count(); ++i) longest_ = std::max(longest_, rows_.at(i, spare).count);
    for (int64_t r = 0; r < kept_rows_; ++r) {
      for (int64_t c = 0; c < columns_.count(); ++c) make(r, c, kept_[r * columns_.count() + c]);
    }
  }

  // Row lattices, and the rows of the longest.
  int64_t lattices() const { return rows_.count(); }
  int64_t longest() const { return longest_; }

  // An image. Its pixels are `source_pitch` and `result_pitch` elements apart. packed: the weights of the tile's channels.
  struct Image {
    const T* source;
    int64_t source_pitch;
    T* result;
    int64_t result_pitch;
    const A* packed;
  };

  // Of row lattice r, the rows that lie in [begin, end).
  Range rows_within(int64_t r, int64_t begin, int64_t end) const {
    Lattice spare;
    const Lattice& rows = rows_.at(r, spare);
    const Range range = inside(rows.first - begin, rows.period, end - begin);
    return {range.lo, std::min(range.hi, rows.count)};
  }

  // Row j of row lattice r and, if it is before `end`, its neighbour.
  void compute(Tile<T>& tile, const Image& image, int64_t r, int64_t j, int64_t end) const {
    NhwcLine<T> spare[2];
    const NhwcLine<T>& first = at(r, 0, spare[0]);
    const Lattice& rows = first.rows;
    end = std::min(end, rows.count);
    if (j >= end) return;
    const int64_t source_row = col_axis_.sources * image.source_pitch;
    const int64_t result_row = col_axis_.results * image.result_pitch;
    const int64_t base = rows.source + rows.source_period * j;
    const Range range = inside(base, rows.tap_step, row_axis_.sources);
    tile.count = std::min<int64_t>(2, end - j);
    tile.top = range.lo, tile.bottom = range.hi;
    tile.row_taps = rows.taps;
    tile.row_shift = first.row_shift;
    tile.row_pitch = rows.tap_step * source_row;
    tile.result_row_pitch = rows.period * result_row;
    tile.width = col_axis_.sources;
    T* result = image.result + (rows.first + rows.period * j) * result_row;
    const Walk walk{
        image.result_pitch, image.source_pitch, image.source + base * source_row, result, image.packed, tile};
    if (col_axis_.transposed && columns_.count() == 2) {
      // Results of the two lattices alternate: by turns, so that a line of memory is written in one go.
      const NhwcLine<T>& second = at(r, 1, spare[1]);
      for (int64_t at = 0; at < first.cols.count; at += kMost) {
        walk(first, at, at + kMost), walk(second, at, at + kMost);
      }
      return;
    }
    walk(first, 0, first.cols.count);
    for (int64_t c = 1; c < columns_.count(); ++c) {
      const NhwcLine<T>& line = at(r, c, spare[1]);
      walk(line, 0, line.cols.count);
    }
  }

 private:
  struct Walk {
    int64_t channels, pitch;
    const T* source;
    T* result;
    const A* packed;
    Tile<T>& tile;

    // Tiles that cover results [j, end) of the line. The last one may start early and compute results twice, to the same
    // bits; `j` is a multiple of kMost.
    void operator()(const NhwcLine<T>& line, int64_t j, int64_t end) const {
      const Lattice& cols = line.cols;
      tile.taps = cols.taps;
      tile.pitch = cols.tap_step * pitch;
      tile.result_pitch = cols.period * channels;
      tile.step = cols.tap_step, tile.period = cols.source_period;
      tile.packed = packed + line.packed * L;
      const int64_t count = cols.count;
      end = std::min(end, count);
      while (j < end) {
        const int64_t left = count - j;
        if (count >= kMost && (left > kSome || kMost == kSome)) {
          j = std::min(j, count - kMost);
          line.shared == 0   ? apart(cols, j)
          : line.shared == 1 ? tile_of<kMost, 1>(line.most, cols, j)
                             : tile_of<kMost, 2>(line.most, cols, j);
          j += kMost;
        } else if (count >= kSome && line.shared != 0) {
          j = std::min(j, count - kSome);
          line.shared == 1 ? tile_of<kSome, 1>(line.some, cols, j) : tile_of<kSome, 2>(line.some, cols, j);
          j += kSome;
        } else {
          tile_of<1, 1>(NhwcTile<T, 1, 1>::template rolled<0>, cols, j), ++j;
        }
      }
    }

    template <int R, int S>
    void tile_of(Loop loop, const Lattice& cols, int64_t j) const {
      place(cols, j);
      NhwcTile<T, R, S>::fits(tile) ? loop(tile) : NhwcTile<T, R, S>::template rolled<0>(tile);
    }

    void apart(const Lattice& cols, int64_t j) const {
      using Body = NhwcTile<T, kMost, 1>;
      if (tile.taps > Body::kTaps) {
        for (int r = 0; r < kMost; ++r) tile_of<1, 1>(NhwcTile<T, 1, 1>::template rolled<0>, cols, j + r);
        return;
      }
      place(cols, j);
      const Tile<T> both = tile;
      tile.count = 1;
      for (int64_t r = 0; r < both.count; ++r) {
        Body::unshared(tile);
        tile.source += tile.row_shift * tile.row_pitch, tile.result += tile.result_row_pitch;
        tile.top -= tile.row_shift, tile.bottom -= tile.row_shift;
      }
      tile = both;
    }

    void place(const Lattice& cols, int64_t j) const {
      tile.column = cols.source + cols.source_period * j;
      const Range range = inside(tile.column, cols.tap_step, tile.width);
      tile.lo = range.lo, tile.hi = range.hi;
      tile.source = source + tile.column * pitch;
      tile.result = result + (cols.first + cols.period * j) * channels;
    }
  };

  void make(int64_t r, int64_t c, NhwcLine<T>& line) const {
    Lattice spare[2];
    new (&line) NhwcLine<T>(row_axis_, col_axis_, rows_.at(r, spare[0]), columns_.at(c, spare[1]));
  }

  const NhwcLine<T>& at(int64_t r, int64_t c, NhwcLine<T>& spare) const {
    if (r < kept_rows_) return kept_[r * columns_.count() + c];
    make(r, c, spare);
    return spare;
  }

  static constexpr int64_t kKept = 36;  // a dilation of 6
  Axis row_axis_, col_axis_;
  Lattices rows_, columns_;
  int64_t kept_rows_, longest_ = 0;
  NhwcLine<T> kept_[kKept];
};

DWCONV_END_TARGET

#endif  // DWCONV_CPU_NHWC_TILE_ROWS_H
