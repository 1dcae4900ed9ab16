// The walk of tiles over a plane of results, for the kernel `rows`: one element type, source rows that a vector can be
// loaded from (those of the tensor itself, or copies in scratch), any result type.
#if defined(DWCONV_CPU_NCHW_PLANE_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_NCHW_PLANE_H
#undef DWCONV_CPU_NCHW_PLANE_H
#else
#define DWCONV_CPU_NCHW_PLANE_H
#endif

#include "../simd/activate.h"
#include "row_sums.h"

DWCONV_BEGIN_TARGET

// The kernel columns of a lattice as every strip sees them, made once for all planes. Strips that no padding reaches
// share theirs.
template <class A>
class Columns {
 public:
  static constexpr int L = kLanes<A>;

  Columns() = default;

  // `vectors` in a strip; `results` of the longest lattice that is computed beside this one. Source column c lies at
  // element (c - base) % period * pitch + (c - base) / period of its row: even columns first, then odd ones, if the
  // period is 2.
  Columns(const Lattice& cols_, int64_t results, int64_t width_, int vectors_, int64_t base_, int64_t period_,
          int64_t pitch_)
      : cols(cols_), vectors(vectors_), width(width_), base(base_), period(period_), pitch(pitch_) {
    strips = ceil_div(results, L * vectors);
    while (left < strips && !interior(left)) ++left;
    right = strips;
    while (right > left && !interior(right - 1)) --right;
    const int64_t distinct = strips - (right - left) + (right > left);
    fits = cols.taps <= kKept && distinct <= kKept && distinct * cols.taps <= kKept;
    for (int64_t i = 0; fits && i < distinct; ++i) {
      counts[i] = 0;
      for (int64_t u = 0; u < cols.taps; ++u) {
        compute(i < left + (right > left) ? i : i + strips - distinct, u, kept[i * cols.taps + counts[i]]) &&
            ++counts[i];
      }
    }
  }

  // How many lists each strip's columns come in.
  int64_t rounds() const { return fits ? 1 : cols.taps; }

  DWCONV_INLINE_MEMBER ColumnList<A> list(int64_t strip, int64_t round, Column<A>& spare) const {
    if (!fits) return {&spare, compute(strip, round, spare)};
    return kept_list(strip);
  }
  DWCONV_INLINE_MEMBER ColumnList<A> kept_list(int64_t strip) const {
    const int64_t i = strip < left ? strip : strip < right ? left : strip - (right - left) + (right > left);
    return {kept + i * cols.taps, counts[i]};
  }

  Lattice cols;
  int vectors;
  int64_t strips;

 private:
  // Whether all sources of a whole strip of results are inside.
  bool interior(int64_t strip) const {
    const int64_t first = strip * vectors * L, last = first + vectors * L - 1;
    return last < cols.count && cols.source + cols.source_period * first >= 0 &&
           cols.source + cols.source_period * last + cols.tap_step * (cols.taps - 1) < width;
  }

  // Whether kernel column u reads anything.
  bool compute(int64_t strip, int64_t u, Column<A>& column) const {
    bool any = false;
    for (int v = 0; v < vectors; ++v) {
      const int64_t result = (strip * vectors + v) * L;
      const Range valid =
          inside(cols.source + cols.source_period * result + cols.tap_step * u, cols.source_period, width);
      column.lanes[v] = lanes<A>(valid.lo, std::min(valid.hi, cols.count - result));
      any = any || !column.lanes[v].empty();
    }
    const int64_t from = cols.source - base + cols.tap_step * u;
    column.source = from % period * pitch + from / period;
    column.weight = cols.k + cols.k_step * u;
    return any;
  }

  static constexpr int64_t kKept = 128;
  int64_t width, base, period, pitch;
  int64_t left = 0, right = 0;  // strips [left, right) are interior
  bool fits;
  int64_t counts[kKept];
  Column<A> kept[kKept];
};

// inside(), out of line but for the usual step: divisions are long, and in this place they are many.
static __attribute__((noinline)) Range inside_strided(int64_t base, int64_t step, int64_t size) {
  return inside(base, step, size);
}

// What is the same for all planes of a call.
template <class A>
struct PlaneShape {
  int64_t residues;            // of a row that are computed together: 1, or 2 to interleave
  int64_t source_rows, pitch;  // rows of a source plane, elements between them
  int64_t fan_in, taps, kernel_width;
  int64_t result_width;
  bool copied;  // the source rows, into scratch that is in L1
  bool large;   // more than the caches hold: fetch the lines of the results, too
  bool plain;   // the results are of type A
  void (*store_as)(void* results, int64_t at, int64_t step, Vec<A> value, const Mask<A>& mask);  // for any type
};

// One plane of results.
template <class A>
struct NchwPlane : PlaneShape<A> {
  static constexpr int L = kLanes<A>;
  // How far ahead, in elements, tensors are fetched: planes follow each other, so this is the next rows or plane. Hardware
  // does not follow the short pieces that a tile reads of many rows.
  static constexpr int64_t kAhead = 8192 / sizeof(A);
  static constexpr int kBand = 14;  // rows; tiles of 7 or 14 divide what image networks are made of
  using PlaneShape<A>::residues, PlaneShape<A>::source_rows, PlaneShape<A>::pitch, PlaneShape<A>::fan_in;
  using PlaneShape<A>::taps, PlaneShape<A>::kernel_width, PlaneShape<A>::result_width, PlaneShape<A>::copied;
  using PlaneShape<A>::large, PlaneShape<A>::plain, PlaneShape<A>::store_as;

  const Columns<A>* columns;  // one residue of the row, or two to interleave
  Activation activation;
  int64_t first_strip, last_strip;
  const A* source;  // row 0, of the first strip; the planes of a fan follow each other
  int64_t plane_pitch;
  const A* weight;
  A bias;
  void* result;

  NchwPlane(const PlaneShape<A>& shape, const Columns<A>* columns_, Activation activation_)
      : PlaneShape<A>(shape), columns(columns_), activation(activation_) {}

  template <int S, int R, int V>
  struct Pieces {
    const NchwPlane& plane;
    const Lattice& rows;
    const A* source;
    const A* filter;
    ColumnList<A> list;
    int64_t j;
    Vec<A> (&acc)[R][V];

    template <int NT>
    DWCONV_INLINE_MEMBER void piece(int64_t t) const {
      const int64_t row = rows.source + rows.source_period * j + rows.tap_step * t;
      const A* taps = filter + (rows.k + rows.k_step * t) * plane.kernel_width;
      // Without reuse, neighbouring results are neighbouring rows of one tap.
      const int64_t step = S == 0 ? rows.source_period : rows.tap_step;
      RowSums<A, R, V, NT, S == 0 ? 1 : S>::add(
          acc, source + row * plane.pitch, step * plane.pitch, taps, rows.k_step * plane.kernel_width, list,
          step == 1 ? inside(row, 1, plane.source_rows) : inside_strided(row, step, plane.source_rows));
    }
  };

  // Any number of taps, and of planes in a fan.
  template <int S, int R, int V, int P>
  DWCONV_INLINE_MEMBER void add_any(const Lattice& rows, int64_t strip, int64_t j, const A* from,
                                    Vec<A> (&acc)[P][R][V]) const {
    const A* filter = weight;
    for (int64_t f = 0; f < fan_in; ++f, from += plane_pitch, filter += taps) {
      DWCONV_UNROLL
      for (int p = 0; p < P; ++p) {
        Column<A> spare;
        for (int64_t round = 0; round < columns[p].rounds(); ++round) {
          const Pieces<S, R, V> pieces{*this, rows, from, filter, columns[p].list(strip, round, spare), j, acc[p]};
          if constexpr (S == 0) {
            for (int64_t t = 0; t < rows.taps; ++t) pieces.template piece<1>(t);
          } else {
            for_pieces(pieces, rows.taps);
          }
        }
      }
    }
  }

  // R rows of results from lattice row j on, of one strip: V vectors next to each other, of P residues.
  // With NT, the taps are NT rows of one plane whose columns are kept.
  template <int S, int NT, int R, int V, int P>
  DWCONV_INLINE_MEMBER void tile(const Lattice& rows, int64_t strip, int64_t j) const {
    Vec<A> acc[P][R][V];
    const Vec<A> initial = broadcast<A>(bias);
    DWCONV_UNROLL
    for (int p = 0; p < P; ++p) {
      DWCONV_UNROLL
      for (int r = 0; r < R; ++r) {
        DWCONV_UNROLL
        for (int v = 0; v < V; ++v) acc[p][r][v] = initial;
      }
    }
    const A* from = source + (strip - first_strip) * columns->vectors * L;
    if constexpr (NT > 0) {
      const Pieces<S, R, V> pieces{*this, rows, from, weight, columns->kept_list(strip), j, acc[0]};
      pieces.template piece<NT>(0);
    } else {
      add_any<S>(rows, strip, j, from, acc);
    }
    if (!copied) {
      const A* next = from + (rows.source + rows.source_period * j) * pitch + kAhead;
      DWCONV_UNROLL
      for (int r = 0; r < R; ++r, next += rows.source_period * pitch) {
        DWCONV_UNROLL
        for (int v = 0; v < V; ++v) __builtin_prefetch(next + v * L);
      }
    }
    const int64_t col = strip * columns->vectors * L;
    if (__builtin_expect(plain && activation == Activation::none && columns->cols.period == P, 1)) {
      A* row = static_cast<A*>(result) + (rows.first + rows.period * j) * result_width + P * col;
      const int64_t left = result_width - P * col, next = rows.period * result_width;
      DWCONV_UNROLL
      for (int r = 0; r < R; ++r) {
        if constexpr (P == 2) interleave<A>(acc[0][r][0], acc[1][r][0], acc[0][r][0], acc[1][r][0], LaneIndices<A>{});
        store(row, acc[0][r][0], lanes<A>(0, left));
        if (large) {
          __builtin_prefetch(row + kAhead, 1);
          if (P * V == 2) __builtin_prefetch(row + kAhead + L, 1);
        }
        if (P * V == 2 && left > L) {
          store(row + L, acc[P - 1][r][V - 1], lanes<A>(0, left - L));
        }
        advance(row, next);
      }
    } else {
      Vec<A> values[P * R * V];
      DWCONV_UNROLL
      for (int p = 0; p < P; ++p) {
        DWCONV_UNROLL
        for (int r = 0; r < R; ++r) {
          DWCONV_UNROLL
          for (int v = 0; v < V; ++v) values[(r * P + p) * V + v] = acc[p][r][v];
        }
      }
      store_otherwise(values, R, V, rows, col, j);
    }
  }

  __attribute__((noinline)) void store_otherwise(Vec<A>* values, int R, int V, const Lattice& rows, int64_t col,
                                                 int64_t j) const {
    if (activation != Activation::none) activate_each<A>(values, R * V * int(residues), activation);
    for (int r = 0; r < R; ++r, values += V * residues) {
      const int64_t row = (rows.first + rows.period * (j + r)) * result_width;
      if (residues == 2) interleave<A>(values[0], values[1], values[0], values[1], LaneIndices<A>{});
      const int64_t period = residues == 2 ? 1 : columns->cols.period;
      const int64_t first = residues == 2 ? 2 * col : col;
      const int64_t count = residues == 2 ? result_width : columns->cols.count;
      for (int v = 0; v < V * residues && first + v * L < count; ++v) {
        const int64_t at = row + columns->cols.first * (residues == 1) + (first + v * L) * period;
        store_as(result, at, period, values[v], lanes<A>(0, count - first - v * L));
      }
    }
  }

  // Rows [begin, end) of a lattice, of all strips.
  template <int S, int NT>
  static __attribute__((noinline)) void walk(const NchwPlane& plane, const Lattice& rows, int64_t begin, int64_t end) {
    for (int64_t band = begin; band < end; band += kBand) {
      const int64_t stop = std::min(band + kBand, end);
      for (int64_t strip = plane.first_strip; strip < plane.last_strip; ++strip) {
        if constexpr (NT == 0 && S != 2) {
          if (plane.residues == 2) {
            plane.tiles<S, NT, 1, 2>(rows, strip, band, stop, begin, end);
            continue;
          }
        }
        if (kStripVectors == 2 && strip * 2 * L + L < plane.columns->cols.count) {
          plane.tiles<S, NT, kStripVectors, 1>(rows, strip, band, stop, begin, end);
        } else {
          plane.tiles<S, NT, 1, 1>(rows, strip, band, stop, begin, end);
        }
      }
    }
  }

  // The last tile of 7 may start early, and compute rows a second time to the same bits.
  template <int S, int NT, int V, int P>
  DWCONV_INLINE_MEMBER void tiles(const Lattice& rows, int64_t strip, int64_t j, int64_t stop, int64_t begin,
                                  int64_t end) const {
    if constexpr (NT > 0 && kStripVectors == 2 && V == 1 && S == 1) {
      for (; j + 14 <= stop; j += 14) tile<S, NT, 14, V, P>(rows, strip, j);
    }
    for (; j + 7 <= stop || (end - begin >= 7 && j + 1 < stop); j += 7) {
      tile<S, NT, 7, V, P>(rows, strip, std::min(j, end - 7));
    }
    if constexpr (NT > 0) {
      for (; j + 3 <= stop; j += 3) tile<S, NT, 3, V, P>(rows, strip, j);
    }
    for (; j < stop; ++j) tile<S, NT, 1, V, P>(rows, strip, j);
  }

  using Walk = void (*)(const NchwPlane&, const Lattice&, int64_t begin, int64_t end);

  Walk walk_of(const Lattice& rows) const {
    const int64_t reuse = rows.source_period == rows.tap_step ? 1 : rows.source_period == 2 * rows.tap_step ? 2 : 0;
    const bool single = fan_in == 1 && residues == 1 && columns->rounds() == 1 && reuse != 0;
    switch (single ? rows.taps : 0) {
      case 3: return reuse == 1 ? walk<1, 3> : walk<2, 3>;
      case 5: return reuse == 1 ? walk<1, 5> : walk<2, 5>;
      case 7: return reuse == 1 ? walk<1, 7> : walk<2, 7>;
      default: return reuse == 1 ? walk<1, 0> : reuse == 2 ? walk<2, 0> : walk<0, 0>;
    }
  }
};

DWCONV_END_TARGET

#endif  // DWCONV_CPU_NCHW_PLANE_H
