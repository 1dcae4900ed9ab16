// forward, contiguous layout (NCHW), 3x3 and 5x5 at a stride of 2: the tiles of phases.h.
//
// Method: a source row meets its taps before its columns are taken apart, since results are fewer than sources. A pair of
// neighbouring columns meets taps 2t and 2t + 1 of the result t pairs before it, in slot t of the sums. A row of float32
// is two loads, multiplied with vectors of alternating taps; permutations, one for each tap of a row of results, bring
// a slot's columns together. In 16-bit types even and odd columns come out of one load by shifts, and slots need only be
// moved. Rows of at most half a vector end two by two.
// Bound: bytes for 3x3; FMA for 5x5, and loads, which straddle lines.
#if defined(DWCONV_CPU_NCHW_PHASES_FORWARD_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_NCHW_PHASES_FORWARD_H
#undef DWCONV_CPU_NCHW_PHASES_FORWARD_H
#else
#define DWCONV_CPU_NCHW_PHASES_FORWARD_H
#endif

#include "../simd/activate.h"
#include "phases_walk.h"

DWCONV_BEGIN_TARGET
#if DWCONV_VEC_BYTES >= 32

template <class T, int K, bool narrow>
struct PhasesForward {
  using Element = T;
  using A = Acc<T>;
  using V = Vec<A>;
  static constexpr bool kNarrow = narrow;
  using Bits = uint16_t;  // of a mask, as wide as a mask register is loaded
  static constexpr int L = kLanes<A>;
  static constexpr bool kApart = sizeof(T) == 2;  // a row comes as even and odd columns, else as two halves
  static constexpr int kSlots = (K + 1) / 2;
  static constexpr int kParts = narrow && !kApart ? 1 : 2;  // vectors of a row of sources
  static constexpr int kSums = narrow || kApart ? 1 : 2;    // vectors of a slot
  static constexpr int kPicks = kApart ? 1 : 2;             // of a slot, to make results
  static constexpr int kTile = K == 3 || narrow ? 7 : 2, kLeast = kTile,
                       kVectors = kTile;                     // rows of results: 5x5 holds 15 weights
  static constexpr int kStrip = narrow ? L / 2 : L - K / 2;  // results whose sources are all in 2 L columns
  static constexpr int64_t kSourceStep = 2 * kStrip;
  static constexpr int64_t kAhead = 8192 / sizeof(T);  // elements that are fetched ahead, as in plane.h

  struct Strip {
    Bits part[2];      // lanes inside, of the vectors of a row of sources
    uint32_t columns;  // those inside
    Bits one, most;    // results to store: of a row, and of two if rows are narrow
  };

  Gather problem;
  int64_t width, height, first, shift;  // the window's first column, and pairs of columns left out before it
  bool large;
  Ints<A> index[kSlots][kPicks];  // where each result's columns are, in two vectors of sums

  explicit PhasesForward(const Gather& problem_)
      : problem(problem_),
        width(problem.cols.sources),
        height(problem.rows.sources),
        large(problem.elements() * int64_t(sizeof(T)) > caches::kResultsInCache) {
    const int64_t pad = problem.cols.pad, results = problem.cols.results;
    first = narrow ? -(pad % 2) : -pad;
    shift = narrow ? pad / 2 : 0;
    for (int t = 0; t < kSlots; ++t) {
      for (int q = 0; q < kPicks; ++q) {
        for (int i = 0; i < L; ++i) {
          const int64_t row = narrow ? (i >= results) + (i >= 2 * results) : 0;
          const int64_t lane = kPicks * (i - row * results + t - shift) + q;
          // What lies outside of a narrow window is as empty as its last lane, or the first, before column 0.
          const bool empty = narrow && (lane < 0 || lane >= L || row > 1);
          if constexpr (kVecBytes == 64)
            index[t][q][i] = empty ? (kApart || pad % 2 == 0) * (L - 1) : int(lane + row * L) % (2 * L);
        }
      }
    }
  }

  // Whether rows are narrow: two rows of results in a vector, and lanes to spare in that of a row of sources.
  static bool fits(const Gather& problem) {
    const int64_t odd = problem.cols.pad % 2, window = problem.cols.sources + odd, results = problem.cols.results;
    return results > 0 && 2 * results <= L && window < (kApart ? 2 * L - 1 : L + odd);
  }
  static int64_t steps(const Gather& problem) { return problem.rows.results; }
  // Whether the rows in the middle of every tile are inside.
  bool regular() const { return problem.rows.pad < K && 2 * problem.rows.results - 2 - problem.rows.pad < height; }

  Strip strip(int64_t at) const {
    Strip strip;
    const int64_t base = first + at * 2 * kStrip, count = std::min<int64_t>(kStrip, problem.cols.results - at * kStrip);
    for (int v = 0; v < 2; ++v) {
      const Range valid = kApart ? inside(base + v, 2, width) : inside(base + v * L, 1, width);
      strip.part[v] = lane_bits<A>(valid.lo, valid.hi);
    }
    const auto below = [&](int64_t end) { return _bzhi_u32(~0u, unsigned(std::clamp<int64_t>(end - base, 0, 2 * L))); };
    strip.columns = below(width) & ~below(0);
    strip.one = lane_bits<A>(0, count);
    strip.most = narrow ? lane_bits<A>(0, 2 * count) : strip.one;
    return strip;
  }

  // Two neighbouring taps by turns.
  static DWCONV_INLINE_MEMBER V alternating(const A* tap) {
#if DWCONV_VEC_BYTES == 64
    if constexpr (sizeof(A) == 4) {
      return (V)_mm512_castpd_ps(_mm512_set1_pd(load_bytes<double>(tap)));
    } else {
      return (V)_mm512_maskz_broadcast_f64x2(0xff, _mm_loadu_pd(tap));
    }
#else
    if constexpr (sizeof(A) == 4) {
      return (V)_mm256_castpd_ps(_mm256_set1_pd(load_bytes<double>(tap)));
    } else {
      return (V)_mm256_broadcast_pd(reinterpret_cast<const __m128d*>(tap));
    }
#endif
  }

  struct Filter {
    PhaseTaps<T, K * K> taps;        // kApart
    V alternating[K][kSlots], bias;  // two taps by turns, otherwise
    bool finite;
  };

  DWCONV_INLINE_MEMBER void load_filter(Filter& result, const GatherCall<T>& call, int64_t channel) const {
    const T* filter = call.weight + channel * call.taps;
    if constexpr (kApart) {
      result.taps.load_from(filter);
    } else {
      DWCONV_UNROLL
      for (int k = 0; k < K; ++k, filter += K) {
        DWCONV_UNROLL
        for (int t = 0; t < K / 2; ++t) result.alternating[k][t] = alternating(filter + 2 * t);
        result.alternating[k][K / 2] = broadcast<A>(filter[K - 1]);
      }
    }
    result.bias = broadcast<A>(call.bias ? to_acc(call.bias[channel]) : A(0));
    result.finite = kMaskedProducts || all_finite<K * K>(call.weight + channel * call.taps);
  }
  // Whether tiles of several rows can compute with the filter.
  DWCONV_INLINE_MEMBER bool takes(const Filter& filter) const { return filter.finite; }

  // Of a row of taps, those that a slot's part meets.
  static DWCONV_INLINE_MEMBER V weight(const Filter& filter, const A* taps, int k, int t, int part) {
    if constexpr (kApart) {
      return filter.taps.at(k * K + 2 * t + part, taps);
    } else {
      return filter.alternating[k][t];
    }
  }

  static DWCONV_INLINE_MEMBER void load_row(const T* p, const HeldMask<A> (&part)[2], uint32_t columns, V& a, V& b) {
    if constexpr (kApart) {
      const Bits32 both = load_columns(p, columns);
      if constexpr (std::is_same_v<T, bf16>) {
        a = (V)(both << 16), b = (V)(both & 0xffff0000u);
      } else {
        a = widen(__builtin_convertvector(both, Half16), T{});
        b = widen(__builtin_convertvector(both >> 16, Half16), T{});
      }
    } else {
      a = load(p, mask_of<A>(part[0]));
      if (kParts == 2) b = load(p + L, mask_of<A>(part[1]));
    }
  }

  // A row of results out of its sums, or two.
  DWCONV_INLINE_MEMBER V total(V bias, const V (&sums)[kSlots][kSums],
                               [[maybe_unused]] const V (&next)[kSlots][kSums]) const {
    V sum = bias;
    if constexpr (kVecBytes < 64) {
      DWCONV_UNROLL
      for (int t = 0; t < kSlots; ++t) {
        V slot = sums[t][0];
        if constexpr (!kApart) slot = pick_even<A>(sums[t][0], sums[t][1], LaneIndices<A>{});
        if (!kApart && 2 * t + 1 < K) slot += pick_odd<A>(sums[t][0], sums[t][1], LaneIndices<A>{});
        if (t == 1) slot = shift_down<1, A>(slot, LaneIndices<A>{});
        if (t == 2) slot = shift_down<2, A>(slot, LaneIndices<A>{});
        sum += slot;
      }
    } else {
      DWCONV_UNROLL
      for (int t = 0; t < kSlots; ++t) {
        DWCONV_UNROLL
        for (int q = 0; q < kPicks; ++q) {
          if (2 * t + q >= K) continue;
          if (kApart && !narrow && t == 0) {
            sum += sums[t][0];
          } else {
            sum += permute<A>(sums[t][0], narrow ? next[t][0] : sums[t][kSums - 1], index[t][q]);
          }
        }
      }
    }
    return sum;
  }

  // R rows of results from row j on, of any plane.
  template <int R>
  struct Rows {
    int64_t source, result;  // where they begin
    bool border;
    uint32_t edges[2 * R - 2 + K];
  };
  template <int R>
  Rows<R> rows(int64_t j, int64_t) const {
    const int64_t row = 2 * j - problem.rows.pad;
    Rows<R> rows = {row * width + first, j * problem.cols.results, false, {}};
    for (int i = 0; i < 2 * R - 2 + K; ++i) {
      rows.edges[i] = row + i >= 0 && row + i < height ? ~0u : 0u;
      rows.border = rows.border || rows.edges[i] == 0;
    }
    return rows;
  }

  // R rows of results of a strip. Of their rows of sources, from p on, those in the middle are inside; if there is a
  // border, `rows` knows about the others.
  template <int R, bool border>
  DWCONV_INLINE_MEMBER void tile(const Filter& filter, const Strip& strip, const Rows<R>& rows,
                                 [[maybe_unused]] Activation activation, const T* p, T* to) const {
    constexpr bool kMasked = kMaskedProducts || R == 1;
    const HeldMask<A> part[2] = {held<A>(strip.part[0]), held<A>(strip.part[1])};
    V sums[R][kSlots][kSums], out[narrow ? (R + 1) / 2 : R];
    DWCONV_UNROLL
    for (int i = 0; i < 2 * R - 2 + K; ++i, p += width) {
      opaque(p);
      if (i % 2 == 0 && i / 2 < R) {
        DWCONV_UNROLL
        for (int t = 0; t < kSlots; ++t) {
          DWCONV_UNROLL
          for (int v = 0; v < kSums; ++v) sums[i / 2][t][v] = V{};
        }
      }
      const bool middle = i >= K - 1 && i <= 2 * R - 2;
      if (!border || middle || __builtin_expect(rows.edges[i] != 0, 1)) {
        V a, b = {};
        load_row(p, part, strip.columns, a, b);
        const A* taps = kApart ? filter.taps.memory() : nullptr;
        opaque(a);
        if (kParts == 2) opaque(b);
        if (i < 2 * R) __builtin_prefetch(p + kAhead);
        if (i < 2 * R && kSums == 2 && kVecBytes == 64) __builtin_prefetch(p + kAhead + L);
        DWCONV_UNROLL
        for (int r = 0; r < R; ++r) {
          const int k = i - 2 * r;
          if (k < 0 || k >= K) continue;
          DWCONV_UNROLL
          for (int t = 0; t < kSlots; ++t) {
            V &low = sums[r][t][0], &high = sums[r][t][kSums - 1];
            V tap = weight(filter, taps, k, t, 0);
            if (kVecBytes < 64 && !kApart) opaque(tap);  // loaded once, for both
            low = add_product_if<A, kMasked>(low, tap, a, part[0]);
            if (kParts == 1 || (kApart && 2 * t + 1 == K)) continue;
            if (kVecBytes == 64 || kApart) tap = weight(filter, taps, k, t, 1);
            high = add_product_if<A, kMasked>(high, tap, b, part[1]);
          }
        }
      }
      if (i < K - 1 || i % 2 != 0) continue;
      const int r = (i - K + 1) / 2;
      if (!narrow) out[r] = total(filter.bias, sums[r], sums[r]);
      if (narrow && r % 2 == 1) out[r / 2] = total(filter.bias, sums[r - 1], sums[r]);
      if (narrow && r % 2 == 0 && r == R - 1) out[r / 2] = total(filter.bias, sums[r], sums[r]);
    }
    activate<T>(out, activation);
    const int64_t step = problem.cols.results * (narrow ? 2 : 1);
    constexpr int kOut = int(sizeof out / sizeof(V));
    const HeldMask<A> most = held<A>(strip.most), one = held<A>(strip.one);
    DWCONV_UNROLL
    for (int o = 0; o < kOut; ++o, to += step) {
      opaque(to);
      store_first(to, out[o], mask_of<A>(o + 1 < kOut || R % 2 == 0 ? most : one));
      if (large) __builtin_prefetch(to + kAhead, 1);
    }
  }
};

#endif
DWCONV_END_TARGET

#endif  // DWCONV_CPU_NCHW_PHASES_FORWARD_H
