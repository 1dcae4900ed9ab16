// The inner loop of the NCHW gather: R rows of V vectors of results against NT rows of taps of every kernel column.
//
// Kernel columns are a rolled loop. One column's taps are held as broadcast weights while the loop walks its source
// rows, each loaded once: with rows outside, compilers hoist all the weights and spill. A mask for each column and
// vector, made once for all planes, stands for the padding at the left and right; rows outside at the top and bottom
// are left out by the bits of `inside`.
#if defined(DWCONV_CPU_NCHW_ROW_SUMS_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_NCHW_ROW_SUMS_H
#undef DWCONV_CPU_NCHW_ROW_SUMS_H
#else
#define DWCONV_CPU_NCHW_ROW_SUMS_H
#endif

#include "../axis/tile.h"

DWCONV_BEGIN_TARGET

// A mask in its register, instead of one load for each row.
template <class A>
DWCONV_INLINE void pin([[maybe_unused]] Mask<A>& mask) {
#if DWCONV_VEC_BYTES == 64
  __mmask16 bits = __mmask16(mask.bits);
  asm("" : "+Yk"(bits));
  mask = Mask<A>::of(bits);
#endif
}

#if DWCONV_VEC_BYTES == 64
constexpr int kStripVectors = 2;  // of 32 registers 14 are accumulators, up to 7 weights
#else
constexpr int kStripVectors = 1;
#endif

// A kernel column as one strip of results sees it.
template <class A>
struct Column {
  int64_t source, weight;        // elements to add to the source row and to the row of taps
  Mask<A> lanes[kStripVectors];  // those whose source is inside
};

template <class A>
struct ColumnList {
  const Column<A>* first;
  int64_t count;
};

// Result row r reads source row S*r + t through tap row t.
template <class A, int R, int V, int NT, int S>
struct RowSums {
  static constexpr int L = kLanes<A>, kRows = kPositions<R, NT, S>;
  static constexpr bool kMasked = kNativeMasks<A>;
  static_assert(kRows < 32);

  // The rows of a column in memory, or where those that no single instruction loads were put.
  struct Direct {
    const A* p;
    int64_t pitch;
    template <bool masked>
    DWCONV_INLINE_MEMBER Vec<A> at(int, int v, const Mask<A>& mask) const {
      if constexpr (masked) return load(p + v * L, mask);
      return load(p + v * L);
    }
    DWCONV_INLINE_MEMBER void next() { advance(p, pitch); }
  };
  struct Collected {
    const Vec<A> (*p)[V];
    template <bool>
    DWCONV_INLINE_MEMBER Vec<A> at(int i, int v, const Mask<A>&) const {
      return p[i][v];
    }
    DWCONV_INLINE_MEMBER void next() {}
  };

  template <bool masked, bool border, class From>
  static DWCONV_INLINE_MEMBER void add_column(Vec<A> (&acc)[R][V], const Vec<A> (&weight)[NT], From from,
                                              const Column<A>& column, uint32_t inside) {
    Mask<A> mask[V];
    DWCONV_UNROLL
    for (int v = 0; v < V; ++v) {
      mask[v] = column.lanes[v];
      pin<A>(mask[v]);
    }
    asm volatile("" : "+r"(inside));  // or its bits would be taken apart before the loop, and spilled
    DWCONV_UNROLL
    for (int i = 0; i < kRows; ++i) {
      if (inside >> i & 1) {
        DWCONV_UNROLL
        for (int v = 0; v < V; ++v) {
          Vec<A> value = from.template at<masked>(i, v, mask[v]);
          if constexpr (!masked) opaque(value);
          DWCONV_UNROLL
          for (int t = 0; t < NT; ++t) {
            const int r = reached<R, S>(i, t);
            if (r < 0) continue;
            if constexpr (border) {
              acc[r][v] = add_product<A>(acc[r][v], weight[t], value, mask[v]);
            } else {
              acc[r][v] += weight[t] * value;
            }
          }
        }
      }
      from.next();
    }
  }

  static DWCONV_INLINE_MEMBER void add_columns(Vec<A> (&acc)[R][V], const A* source, int64_t pitch, const A* taps,
                                               int64_t next_tap, ColumnList<A> columns, uint32_t inside) {
    for (const Column<A>* c = columns.first; c != columns.first + columns.count; ++c) {
      Vec<A> weight[NT];
      const A* tap = taps + c->weight;
      DWCONV_UNROLL
      for (int t = 0; t < NT; ++t, tap += next_tap) weight[t] = broadcast<A>(*tap);
      const Direct rows{source + c->source, pitch};
      if constexpr (kVecBytes == 64) {
        add_column<true, true>(acc, weight, rows, *c, inside);
      } else if (c->lanes[0].full()) {
        add_column<false, false>(acc, weight, rows, *c, inside);
      } else if constexpr (kMasked) {
        add_column<true, true>(acc, weight, rows, *c, inside);
      } else {
        Vec<A> collected[kRows][V];
        collect(collected, rows, *c, inside);
        add_column<false, true>(acc, weight, Collected{collected}, *c, inside);
      }
    }
  }

  static __attribute__((noinline)) void collect(Vec<A> (*collected)[V], Direct rows, const Column<A>& column,
                                                uint32_t inside) {
    for (int i = 0; i < kRows; ++i, rows.p += rows.pitch) {
      for (int v = 0; v < V && (inside >> i & 1); ++v) collected[i][v] = load(rows.p + v * L, column.lanes[v]);
    }
  }

  static DWCONV_INLINE_MEMBER void add(Vec<A> (&acc)[R][V], const A* source, int64_t pitch, const A* taps,
                                       int64_t next_tap, ColumnList<A> columns, Range range) {
    const int lo = int(std::min<int64_t>(range.lo, kRows)), hi = int(std::min<int64_t>(range.hi, kRows));
    const uint32_t inside = ((1u << hi) - 1) & ~((1u << lo) - 1);
    if (inside != 0) add_columns(acc, source, pitch, taps, next_tap, columns, inside);
  }
};

DWCONV_END_TARGET

#endif  // DWCONV_CPU_NCHW_ROW_SUMS_H
