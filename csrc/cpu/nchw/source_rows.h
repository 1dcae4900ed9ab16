// How the kernel `rows` divides its work, and how it copies source rows. A band of rows is converted once to the
// accumulator's type, in scratch that stays in L1, with the columns of each residue of the stride next to each other.
// So one inner loop, on contiguous rows, serves every type and stride. At a stride of 2:
//
//   row of the tensor  a b c d e f     row in scratch  a c e . b d f .
#if defined(DWCONV_CPU_NCHW_SOURCE_ROWS_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_NCHW_SOURCE_ROWS_H
#undef DWCONV_CPU_NCHW_SOURCE_ROWS_H
#else
#define DWCONV_CPU_NCHW_SOURCE_ROWS_H
#endif

#include "../axis/bands.h"
#include "../axis/gather.h"
#include "plane.h"

DWCONV_BEGIN_TARGET

template <class T>
struct SourceRows {
  using A = Acc<T>;
  static constexpr int L = kLanes<A>;
  static constexpr bool kConverted = !std::is_same_v<T, A>;
  static constexpr int64_t kScratch = 65536 / sizeof(A), kScratchInL1 = 24576 / sizeof(A);
  static constexpr int64_t kAhead = NchwPlane<A>::kAhead;

  Gather problem;
  Lattices rows;
  int64_t lattice_rows = 0;    // of the longest lattice
  int64_t together;            // residues of a row that are interleaved
  int vectors;                 // in a strip
  bool copied, whole = false;  // whole: all planes, into the workspace, where scratch is too small for a band
  int64_t base, period;        // of the columns of a copied row: see Columns
  int64_t strips, group;       // strips of a row; those copied together
  int64_t band;                // rows of every lattice copied together

  explicit SourceRows(const Gather& problem_)
      : problem(problem_),
        rows(problem.rows, refined(problem.rows)),
        together(residues(problem.cols) == 2 ? 2 : 1),
        vectors(together == 2 ? 1 : kStripVectors),
        period(residue(problem.cols, 0).source_period) {
    copied = kConverted || period > 1;
    const int64_t results = plan_columns();
    plan_rows();
    strips = ceil_div(results, vectors * L);
    band = std::min<int64_t>(lattice_rows, 7);
    set_group(strips);
    if (!copied) return;
    while (group > 1 && size(band) > kScratch) set_group((group + 1) / 2);
    while (band > 1 && size(band) > kScratch) band /= 2;
    whole = size(band) > kScratch;
    if (whole) set_group(strips);
    while (band < lattice_rows && size(band + 7) <= kScratchInL1) band += 7;
  }

  // Elements from one copied row to the next, and of one residue of the stride in it.
  int64_t pitch() const { return pitch_; }
  int64_t columns() const { return columns_; }
  // Filters and planes that a first stage converts.
  int64_t converted_filters() const { return kConverted ? problem.filters() : 0; }
  int64_t copied_planes() const { return whole ? problem.images * problem.source_channels : 0; }

  // Few, large planes are cut into bands of rows.
  int64_t bands_of_plane() const { return bands(lattice_rows, NchwPlane<A>::kBand, problem.planes()); }

  // The source rows that rows [begin, end) of all lattices read.
  Range source_rows(int64_t begin, int64_t end) const {
    Range needed = {problem.rows.sources, 0};
    for (int64_t i = 0; i < rows.count(); ++i) {
      Lattice spare;
      const Lattice& lattice = rows.at(i, spare);
      const int64_t stop = std::min(end, lattice.count);
      if (begin >= stop || lattice.taps == 0) continue;
      needed.lo = std::min(needed.lo, lattice.source + lattice.source_period * begin);
      needed.hi = std::max(needed.hi, last_source(lattice) + lattice.source_period * (stop - 1) + 1);
    }
    needed.lo = std::max<int64_t>(0, needed.lo);
    return {needed.lo, std::max(needed.lo, std::min(problem.rows.sources, needed.hi))};
  }

  // Rows of a source plane, for the strips from `strip` on.
  void copy(const T* plane, Range needed, int64_t strip, A* to) const {
    const int64_t width = problem.cols.sources, first = base + period * strip * vectors * L;
    for (int64_t y = needed.lo; y < needed.hi; ++y, to += pitch()) {
      copy_row(plane + y * width, width, first, to);
    }
  }

 private:
  void set_group(int64_t group_) {
    group = group_;
    columns_ = round_up(group * vectors * L + margin_, L);
    pitch_ = copied ? period * columns_ : problem.cols.sources;
  }

  int64_t columns_, pitch_;
  int64_t margin_, reach_, row_period_;  // what a strip and a row of results read beyond their own

  static int64_t last_source(const Lattice& lattice) {
    return lattice.source + lattice.tap_step * std::max<int64_t>(0, lattice.taps - 1);
  }

  // Splitting a dilated lattice so that neighbours share sources pays while enough of them are left.
  static bool refined(const Axis& axis) {
    const Lattice lattice = residue(axis, 0);
    return lattice.count >= 5 * refinements(lattice);
  }

  // Returns the results of the longest residue.
  int64_t plan_columns() {
    int64_t first = problem.cols.sources, last = 0, results = 0;
    for (int64_t r = 0; r < residues(problem.cols); ++r) {
      const Lattice lattice = residue(problem.cols, r);
      first = std::min(first, lattice.source), last = std::max(last, last_source(lattice));
      results = std::max(results, lattice.count);
    }
    // Padding in whole vectors, so that the rows themselves are aligned.
    base = copied && first < 0 ? -round_up(-first, L * period) : first;
    margin_ = (last - base) / period + 1;
    return results;
  }

  void plan_rows() {
    int64_t top = problem.rows.sources, bottom = 0;
    row_period_ = 1;
    for (int64_t i = 0; i < rows.count(); ++i) {
      Lattice spare;
      const Lattice& lattice = rows.at(i, spare);
      top = std::min(top, lattice.source), bottom = std::max(bottom, last_source(lattice));
      lattice_rows = std::max(lattice_rows, lattice.count);
      row_period_ = std::max(row_period_, lattice.source_period);
    }
    reach_ = bottom - top;
  }

  // Elements that copies take for so many rows of results.
  int64_t size(int64_t results) const {
    const int64_t most = std::min(problem.rows.sources, row_period_ * (results - 1) + reach_ + 1);
    return problem.fan_in * most * pitch();
  }

  // Source column first + period*i + q goes to element q*columns + i, as far as it is inside.
  void copy_row(const T* row, int64_t width, int64_t first, A* to) const {
    if (period > 2) return copy_strided(row, width, first, to);
    // A negative first is a whole number of vectors.
    int64_t i = first < 0 ? -first >> (period - 1) : 0;
    const T* from = row + first + period * i;
    for (int64_t left = width - first - period * i; i < columns_ && left > 0; i += L) {
      __builtin_prefetch(from + kAhead);
      if (period == 2) __builtin_prefetch(from + kAhead + L);
      const Vec<A> low = left >= L ? load(from) : load(from, lanes<A>(0, left));
      if (period == 1) {
        store(to + i, low);
      } else {
        Vec<A> high = {};
        if (left > L) high = left >= 2 * L ? load(from + L) : load(from + L, lanes<A>(0, left - L));
        store(to + i, pick_even<A>(low, high, LaneIndices<A>{}));
        store(to + columns_ + i, pick_odd<A>(low, high, LaneIndices<A>{}));
      }
      from += period * L, left -= period * L;
    }
  }

  __attribute__((noinline)) void copy_strided(const T* row, int64_t width, int64_t first, A* to) const {
    for (int64_t q = 0; q < period; ++q, to += columns_) {
      for (int64_t i = 0; i < columns_; ++i) {
        const int64_t column = first + period * i + q;
        if (column >= 0 && column < width) to[i] = to_acc(row[column]);
      }
    }
  }
};

DWCONV_END_TARGET

#endif  // DWCONV_CPU_NCHW_SOURCE_ROWS_H
