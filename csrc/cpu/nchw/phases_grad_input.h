// grad_input, contiguous layout (NCHW), 3x3 and 5x5 at a stride of 2: the tiles of phases.h.
//
// Method: results 2j and 2j + 1 along an axis read source j + (pad - P) / 2 + d through kernel element parity + P - 2 d,
// where P is pad % 2. So the four parities of a pair of rows are summed side by side, from one load of a source row for
// each d, and even and odd columns interleaved to be stored. If two rows of sources fit into a vector they are read as
// one, since they are neighbours in memory, and two pairs of rows come out.
// Bound: bytes for 3x3; FMA for 5x5.
#if defined(DWCONV_CPU_NCHW_PHASES_GRAD_INPUT_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_NCHW_PHASES_GRAD_INPUT_H
#undef DWCONV_CPU_NCHW_PHASES_GRAD_INPUT_H
#else
#define DWCONV_CPU_NCHW_PHASES_GRAD_INPUT_H
#endif

#include "phases_walk.h"

DWCONV_BEGIN_TARGET
#if DWCONV_VEC_BYTES >= 32

template <class T, int K, bool narrow, int P>
struct PhasesGradInput {
  using Element = T;
  using A = Acc<T>;
  using V = Vec<A>;
  using Bits = uint16_t;
  static constexpr bool kNarrow = narrow;
  static constexpr int L = kLanes<A>;
  static constexpr int G = narrow ? 2 : 1;                // pairs of rows in a vector
  static constexpr int kVectors = narrow ? 4 : 7;         // of a tile, for each parity
  static constexpr int kTile = G * kVectors, kLeast = 7;  // pairs of rows
  static constexpr int kStrip = 2 * L;                    // results
  static constexpr int64_t kSourceStep = L;
  static constexpr int D = (K + 1) / 2, kFirst = P - (K - 1) / 2;  // values of d, from the first on
  static constexpr int64_t kAhead = 8192 / sizeof(T);

  struct Strip {
    Bits shift[D];         // lanes whose source is inside, by d
    Bits results[2];       // to store, of both vectors
    uint32_t interleaved;  // the same of two bytes each
  };
  struct Filter : PhaseTaps<T, K * K> {
    bool finite;
  };
  template <int R>
  struct Rows {
    int64_t source, result, left;  // where they begin, and rows of results from there on
    bool border;
    Bits edges[G * (R - 1) + D];  // lanes of the rows inside
  };

  Gather problem;
  int64_t width, height, first;  // of the sources, and the column that the first result reads first
  bool large;
  Ints<A> index[2];  // of the vectors to store, in two vectors of sums

  explicit PhasesGradInput(const Gather& problem_)
      : problem(problem_),
        width(problem.cols.sources),
        height(problem.rows.sources),
        first((problem.cols.pad - P) / 2 + kFirst),
        large(problem.elements() * int64_t(sizeof(T)) > caches::kResultsInCache) {
    for (int g = 0; g < 2; ++g) {
      for (int i = 0; i < L; ++i) {
        const int64_t pair = narrow ? g * width + i / 2 : (g * L + i) / 2;
        index[g][i] = int(pair % L + i % 2 * L);
      }
    }
  }

  static bool fits(const Gather& problem) {
    return 2 * problem.cols.sources <= L && ceil_div(problem.cols.results, 2) <= problem.cols.sources;
  }
  static int64_t steps(const Gather& problem) { return ceil_div(problem.rows.results, 2); }
  bool regular() const {
    const int64_t row = (problem.rows.pad - P) / 2 + kFirst;
    return row + D - 1 >= 0 && row + steps(problem) - 1 < height;
  }

  Strip strip(int64_t at) const {
    Strip strip = {};
    const int64_t count = problem.cols.results - at * kStrip;
    for (int g = 0; g < G; ++g) {
      for (int d = 0; d < D; ++d) {
        const Range valid = inside(first + at * L + d, 1, width);
        const int64_t end = std::min(valid.hi, ceil_div(count, 2));
        strip.shift[d] |= lane_bits<A>(g * width + valid.lo, g * width + end);
      }
    }
    for (int g = 0; g < 2; ++g) {
      strip.results[g] = lane_bits<A>(0, narrow ? count : count - g * L);
      if (narrow || g == 0)
        strip.interleaved |= _bzhi_u32(~0u, unsigned(std::min<int64_t>(count, 32))) << (g * 2 * width);
    }
    return strip;
  }

  DWCONV_INLINE_MEMBER void load_filter(Filter& filter, const GatherCall<T>& call, int64_t channel) const {
    filter.load_from(call.weight + channel * call.taps);
    filter.finite = kMaskedProducts || all_finite<K * K>(call.weight + channel * call.taps);
  }
  // Whether tiles of several rows can compute with the filter.
  DWCONV_INLINE_MEMBER bool takes(const Filter& filter) const { return filter.finite; }

  template <int R>
  Rows<R> rows(int64_t j, int64_t to) const {
    const int64_t row = j + (problem.rows.pad - P) / 2 + kFirst, results = problem.rows.results;
    Rows<R> rows = {row * width + first, 2 * j * problem.cols.results, std::min(results, 2 * to) - 2 * j, false, {}};
    for (int i = 0; i < G * (R - 1) + D; ++i) {
      for (int g = 0; g < G; ++g) {
        if (row + i + g < 0 || row + i + g >= height) {
          rows.border = true;
        } else {
          rows.edges[i] |= narrow ? lane_bits<A>(g * width, (g + 1) * width) : Bits(0xffff);
        }
      }
    }
    return rows;
  }

  // R vectors of each parity, of a strip. Rows of sources in the middle are inside.
  template <int R, bool border>
  DWCONV_INLINE_MEMBER void tile(const Filter& filter, const Strip& strip, const Rows<R>& rows,
                                 [[maybe_unused]] Activation activation, const T* p, T* to) const {
    constexpr bool kMasked = kMaskedProducts || R == 1;
    HeldMask<A> shift[D];
    DWCONV_UNROLL
    for (int d = 0; d < D; ++d) shift[d] = held<A>(strip.shift[d]);
    const HeldMask<A> stored[2] = {held<A>(strip.results[0]), held<A>(strip.results[1])};
    V sums[R][2][2];
    DWCONV_UNROLL
    for (int i = 0; i < G * (R - 1) + D; ++i, p += width) {
      opaque(p);
      if (i % G == 0 && i / G < R) {
        DWCONV_UNROLL
        for (int parity = 0; parity < 4; ++parity) sums[i / G][parity / 2][parity % 2] = V{};
      }
      const bool middle = i >= D - 1 && i <= G * (R - 1) - (G - 1);
      if (!border || middle || __builtin_expect(rows.edges[i] != 0, 1)) {
        if (!narrow || i % 2 == 0) __builtin_prefetch(p + kAhead);
        const A* taps = filter.memory();
        DWCONV_UNROLL
        for (int d = 0; d < D; ++d) {
          HeldMask<A> mask = shift[d];
          if constexpr (narrow) mask = middle ? mask : _kand_mask16(mask, rows.edges[i]);
          V value = load_some(p + d, mask_of<A>(mask));
          opaque(value);
          DWCONV_UNROLL
          for (int r = 0; r < R; ++r) add<kMasked>(sums[r], filter, taps, value, mask, i - G * r, d);
        }
      }
      if (i < D - 1 || (i - D + 1) % G != 0) continue;
      const int r = (i - D + 1) / G;
      DWCONV_UNROLL
      for (int down = 0; down < 2; ++down, to += problem.cols.results) {
        opaque(to);
        write(strip, stored, sums[r][down], to, r + 1 < R ? int64_t(2 * G) : rows.left - 2 * G * r, down);
      }
      if (narrow) to += 2 * problem.cols.results;
    }
  }

  // A row of sources to the sums that read it at `down`, counted from the first.
  template <bool masked>
  static DWCONV_INLINE_MEMBER void add(V (&sums)[2][2], const Filter& filter, const A* taps, V value,
                                       const HeldMask<A>& mask, int down, int d) {
    if (down < 0 || down >= D) return;
    DWCONV_UNROLL
    for (int parity = 0; parity < 4; ++parity) {
      const int k = parity / 2 + P - 2 * (down + kFirst), u = parity % 2 + P - 2 * (d + kFirst);
      if (k < 0 || k >= K || u < 0 || u >= K) continue;
      V& sum = sums[parity / 2][parity % 2];
      sum = add_product_if<A, masked>(sum, filter.at(k * K + u, taps), value, mask);
    }
  }

  // Both columns' parities of row `down`, and of row down + 2 if rows are narrow, as far as there are rows left.
  DWCONV_INLINE_MEMBER void write([[maybe_unused]] const Strip& strip, const HeldMask<A> (&stored)[2],
                                  const V (&sums)[2], T* to, int64_t left, int down) const {
    const int64_t next = narrow ? 2 * problem.cols.results : L;
    if constexpr (sizeof(T) == 2) {
      const Bits32 both = narrow_bits(sums[0], T{}) | narrow_bits(sums[1], T{}) << 16;
#if DWCONV_VEC_BYTES == 64
      const __mmask32 low = narrow ? _bzhi_u32(strip.interleaved, unsigned(2 * width)) : strip.interleaved;
      if (down < left) _mm512_mask_storeu_epi16(to, low, (__m512i)both);
      if (narrow && down + 2 < left) {
        _mm512_mask_storeu_epi16(to + next - 2 * width, strip.interleaved ^ low, (__m512i)both);
      }
#else
      if (down >= left) return;
      const int count = stored[0].hi() + stored[1].hi();
      T lane[2 * L];
      __builtin_memcpy(count == 2 * L ? to : lane, &both, sizeof both);
      if (count < 2 * L) store_count<2 * L>(to, lane, count);
#endif
    } else {
      V low, high;
#if DWCONV_VEC_BYTES == 64
      low = permute<A>(sums[0], sums[1], index[0]), high = permute<A>(sums[0], sums[1], index[1]);
#else
      interleave<A>(sums[0], sums[1], low, high, LaneIndices<A>{});
#endif
      if (down < left) store_first(to, low, mask_of<A>(stored[0]));
      if (down + 2 * (G - 1) < left) store_first(to + next, high, mask_of<A>(stored[1]));
    }
    if (large) __builtin_prefetch(to + kAhead, 1);
    if (large && sizeof(T) > 2 && kVecBytes == 64) __builtin_prefetch(to + kAhead + next, 1);
  }
};

#endif
DWCONV_END_TARGET

#endif  // DWCONV_CPU_NCHW_PHASES_GRAD_INPUT_H
