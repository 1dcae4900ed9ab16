// A row of many taps in NHWC at a stride of one: all sources of a tile's row pass by once, R at a time.
//
// Source position i reaches result r through tap i - r. R positions in registers meet each of the 2R - 1 taps between
// them and the R results once, so that no tap is tested and no position outside the image costs anything, however far
// the taps reach beyond it. Positions that not all results reach, at both ends of the taps, go one by one.
// For 16-bit types with AVX-512: pieces of taps (nhwc_tile.h) convert each position once a piece, and take twice as long in
// bfloat16; in float32 they are up to 5 % faster.
#if defined(DWCONV_CPU_NHWC_LONG_ROW_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_NHWC_LONG_ROW_H
#undef DWCONV_CPU_NHWC_LONG_ROW_H
#else
#define DWCONV_CPU_NHWC_LONG_ROW_H
#endif

#include "../simd/lanes.h"

DWCONV_BEGIN_TARGET

template <class T, int R>
struct NhwcLongRow {
  using A = Acc<T>;
  static constexpr int L = kLanes<A>;
  static constexpr int64_t kTaps = 2 * R - 1;  // from which on whole groups of R positions come up

  Vec<A> (&acc)[2][R];
  const T* at;  // position 0
  int64_t pitch;
  const A *filter0, *filter1;  // taps for the first and for the second row of results

  // Positions [lo, hi) are inside.
  template <bool first, bool second>
  DWCONV_INLINE_MEMBER void run(int64_t taps, int64_t lo, int64_t hi) const {
    if (lo < R - 1) {
      DWCONV_UNROLL
      for (int i = 0; i < R - 1; ++i) {
        if (i >= lo && i < hi) position<first, second>(i, 0, i + 1);
      }
    }
    int64_t i = std::max<int64_t>(lo, R - 1);
    const int64_t end = std::min(hi, taps);
    for (; i + R <= end; i += R) group<first, second>(i);
    for (; i < end; ++i) position<first, second>(i, 0, R);
    if (hi > taps) {
      DWCONV_UNROLL
      for (int r = 1; r < R; ++r) {
        if (taps + r - 1 >= lo && taps + r - 1 < hi) position<first, second>(taps + r - 1, r, R);
      }
    }
  }

 private:
  // One position, which results [begin, end) read.
  template <bool first, bool second>
  DWCONV_INLINE_MEMBER void position(int64_t i, int begin, int end) const {
    const Vec<A> value = load_once(at + i * pitch);
    const A *taps0 = filter0 + i * L, *taps1 = filter1 + i * L;
    DWCONV_UNROLL
    for (int r = 0; r < R; ++r) {
      if (r < begin || r >= end) continue;
      if constexpr (first) acc[0][r] += load(taps0 - r * L) * value;
      if constexpr (second) acc[1][r] += load(taps1 - r * L) * value;
    }
  }

  // Positions [i, i + R), which all results read.
  template <bool first, bool second>
  DWCONV_INLINE_MEMBER void group(int64_t i) const {
    Vec<A> value[R];
    const T* from = at + i * pitch;
    DWCONV_UNROLL
    for (int m = 0; m < R; ++m) {
      if (m % 3 == 0 && m > 0) from += 3 * pitch, opaque(from);
      value[m] = load_once(from + m % 3 * pitch);
    }
    const A *taps0 = filter0 + (i - (R - 1)) * L, *taps1 = filter1 + (i - (R - 1)) * L;
    DWCONV_UNROLL
    for (int t = 0; t < 2 * R - 1; ++t) {
      Vec<A> weight0{}, weight1{};
      if constexpr (first) weight0 = load_once(taps0 + t * L);
      if constexpr (second) weight1 = load_once(taps1 + t * L);
      DWCONV_UNROLL
      for (int m = 0; m < R; ++m) {
        const int r = m + R - 1 - t;
        if (r < 0 || r >= R) continue;
        if constexpr (first) acc[0][r] += weight0 * value[m];
        if constexpr (second) acc[1][r] += weight1 * value[m];
      }
    }
  }
};

DWCONV_END_TARGET

#endif  // DWCONV_CPU_NHWC_LONG_ROW_H
