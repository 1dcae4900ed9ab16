// The inner loops of forward and grad_input in NHWC: a tile of neighbouring results, one vector of channels after another.
//
// The sums of the tile and the weights of a row of taps stay in registers while a row of positions goes by, each loaded once
// and used for every result that it reaches. Padding is loop bounds or, where the rows of taps are unrolled, a bit test a
// row; positions in the horizontal padding are skipped by a bit test at both ends of a row. The tests come out alike for
// every vector of channels, so they are predicted.
#if defined(DWCONV_CPU_NHWC_TILE_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_NHWC_TILE_H
#undef DWCONV_CPU_NHWC_TILE_H
#else
#define DWCONV_CPU_NHWC_TILE_H
#endif

#include "../axis/tile.h"
#include "../simd/activate.h"
#include "../simd/round.h"
#include "long_row.h"

DWCONV_BEGIN_TARGET

// Everything about a tile but its size: one row of results or two, row_shift source rows apart. Pitches count elements.
template <class T>
struct Tile {
  using A = Acc<T>;

  const T* source;           // source row 0 of the first row of results, position 0, channel 0
  int64_t row_pitch, pitch;  // of source rows and positions
  T* result;
  int64_t result_row_pitch, result_pitch;
  const A* packed;      // taps [vector][row][tap][lane], from the first vector on
  int64_t vector_taps;  // elements between vectors
  bool far, stream;     // the source comes from memory, so fetch it ahead; store past the caches
  bool rounds = false;  // by the instruction for it (round.h)
  const T* bias;        // of channel 0, or null
  Activation activation;
  int64_t count;           // rows of results
  int64_t row_shift;       // source row p is tap row p of the first row of results, p - row_shift of the second
  int64_t top, bottom;     // source rows inside
  int64_t row_taps, taps;  // rows of taps, taps in a row
  int64_t lo, hi;          // positions inside
  int64_t column, step, period, width;  // position 0, from a tap and from a result to the next, all: in source columns
  int64_t begin, end;                   // channels, in steps of a vector
  int64_t most;                         // where the last vector begins: before its turn if the channels do not fill it
};

template <class T, int R, int S>
struct NhwcTile {
  using A = Acc<T>;
  static constexpr int L = kLanes<A>;

  template <int NT>
  static DWCONV_INLINE_MEMBER void load_weights(Vec<A> (&weight)[NT], const A* filter) {
    DWCONV_UNROLL
    for (int t = 0; t < NT; ++t) weight[t] = kVecBytes == 64 ? load_once(filter + t * L) : load(filter + t * L);
  }

  static DWCONV_INLINE_MEMBER void start(Vec<A> (&acc)[2][R], const Tile<T>& tile, int64_t channel) {
    const Vec<A> initial = tile.bias ? load(tile.bias + channel) : Vec<A>{};
    DWCONV_UNROLL
    for (int r = 0; r < R; ++r) acc[0][r] = acc[1][r] = initial;
  }

  static DWCONV_INLINE_MEMBER void finish(Vec<A> (&acc)[2][R], const Tile<T>& tile, int64_t channel) {
    finish_row(acc[0], tile, tile.result + channel);
    if (tile.count == 2) finish_row(acc[1], tile, tile.result + tile.result_row_pitch + channel);
  }
  static DWCONV_INLINE_MEMBER void finish_row(Vec<A> (&acc)[R], const Tile<T>& tile, T* result) {
    activate<T>(acc, tile.activation);
#if DWCONV_VEC_BYTES == 64
    if constexpr (kRoundsAtOnce<T>) {
      if (tile.rounds) return store_at_once<R>(result, tile.result_pitch, acc);
    }
#endif
    if (kStreams<T> && tile.stream) {
      DWCONV_UNROLL
      for (int r = 0; r < R; ++r) stream(result + r * tile.result_pitch, acc[r]);
    } else {
      DWCONV_UNROLL
      for (int r = 0; r < R; ++r) store(result + r * tile.result_pitch, acc[r]);
    }
  }

  // The bits from lo to hi, of the lowest `count`.
  static DWCONV_INLINE_MEMBER uint32_t bits(int64_t lo, int64_t hi, int count) {
    const int first = int(std::clamp<int64_t>(lo, 0, count)), last = int(std::clamp<int64_t>(hi, 0, count));
    return ((1u << last) - 1) & ~((1u << first) - 1);
  }

  // Whether position i may lie outside: to the left or right of where the middle tap may lie. Other tiles do not fit.
  template <int NT>
  static constexpr bool tested(int i) {
    return i < NT / 2 || i >= kPositions<R, NT, S> - NT / 2;
  }
  static bool fits(const Tile<T>& tile) {
    return tile.lo <= tile.taps / 2 && tile.hi >= S * (R - 1) + tile.taps - tile.taps / 2;
  }

  // A row of positions, of which each result row named is reached through NT taps.
  template <int NT, bool first, bool second, bool all>
  static DWCONV_INLINE_MEMBER void positions(Vec<A> (&acc)[2][R], const Vec<A>* weight0, const Vec<A>* weight1,
                                             const T* at, int64_t pitch, uint32_t inside) {
    opaque(inside);
    DWCONV_UNROLL
    for (int i = 0; i < kPositions<R, NT, S>; ++i) {
      if (i % 3 == 0 && i > 0) at += 3 * pitch, opaque(at);  // addresses that need no other register
      if ((all || tested<NT>(i)) && !(inside & (1u << i))) continue;
      const Vec<A> value = load_once(at + i % 3 * pitch);
      DWCONV_UNROLL
      for (int t = 0; t < NT; ++t) {
        if (reached<R, S>(i, t) < 0) continue;
        if constexpr (first) acc[0][reached<R, S>(i, t)] += weight0[t] * value;
        if constexpr (second) acc[1][reached<R, S>(i, t)] += weight1[t] * value;
      }
    }
  }

  // Two rows of results, S source rows apart, with NR rows of NT taps: all unrolled, and each weight is loaded once. Of a
  // single row the second is computed all the same, as far as the first one's source rows reach, and dropped.
  template <int NR, int NT>
  static __attribute__((noinline)) void unrolled(const Tile<T>& tile) {
    const uint32_t inside = bits(tile.lo, tile.hi, kPositions<R, NT, S>);
    uint32_t rows = bits(tile.top, tile.bottom, tile.count == 2 ? NR + S : NR);
    const A* filter = tile.packed;
    for (int64_t begin = tile.begin; begin < tile.end; begin += L, filter += tile.vector_taps) {
      const int64_t channel = std::min(begin, tile.most);
      const T* at = tile.source + channel;
      Vec<A> acc[2][R], weight[NR + S][NT];
      start(acc, tile, channel);
      opaque(rows);
      DWCONV_UNROLL
      for (int p = 0; p < NR + S; ++p, at += tile.row_pitch) {
        if (p < NR) load_weights(weight[p], filter + p * NT * L);
        opaque(at);
        if (!(rows & (1u << p))) continue;
        if (tile.far && p >= NR - S) {  // what the next two rows of results read and these do not
          DWCONV_UNROLL
          for (int i = 0; i < R * S; ++i) __builtin_prefetch(at + 2 * S * tile.row_pitch + i * tile.pitch);
        }
        constexpr int kBefore = NR + S;
        const Vec<A>* const before = weight[p < S ? p : (p - S) % kBefore];
        if (p < S && p < NR) {
          positions<NT, true, false, false>(acc, weight[p], before, at, tile.pitch, inside);
        } else if (p < NR) {
          positions<NT, true, true, false>(acc, weight[p], before, at, tile.pitch, inside);
        } else if (p >= S) {
          positions<NT, false, true, false>(acc, weight[p], before, at, tile.pitch, inside);
        }
      }
      finish(acc, tile, channel);
    }
  }

  // Source rows [begin, end), which reach the result rows named. NT = 0 is for any number of taps, kManyTaps for those of
  // NhwcLongRow.
  static constexpr int kManyTaps = -1;
  template <int NT, bool first, bool second>
  static DWCONV_INLINE_MEMBER void rows(Vec<A> (&acc)[2][R], const Tile<T>& tile, const T* at, const A* filter,
                                        int64_t begin, int64_t end) {
    const int64_t count = NT > 0 ? NT : tile.taps;
    at += begin * tile.row_pitch;
    const A* filter0 = filter + begin * count * L;
    const A* filter1 = filter + (begin - tile.row_shift) * count * L;
    for (int64_t p = begin; p < end; ++p, at += tile.row_pitch, filter0 += count * L, filter1 += count * L) {
      if constexpr (kSumsByRow<A>) {
        Vec<A> sums[2][R] = {};
        row<NT, first, second>(sums, tile, at, filter0, filter1);
        DWCONV_UNROLL
        for (int r = 0; r < R; ++r) {
          if constexpr (first) acc[0][r] += sums[0][r];
          if constexpr (second) acc[1][r] += sums[1][r];
        }
      } else {
        row<NT, first, second>(acc, tile, at, filter0, filter1);
      }
    }
  }

  // One source row, which meets a row of taps of each result row named.
  template <int NT, bool first, bool second>
  static DWCONV_INLINE_MEMBER void row(Vec<A> (&acc)[2][R], const Tile<T>& tile, const T* at, const A* filter0,
                                       const A* filter1) {
    const int64_t count = NT > 0 ? NT : tile.taps;
    int64_t t = 0;
    if constexpr (NT == kManyTaps) {
      NhwcLongRow<T, R>{acc, at, tile.pitch, filter0, filter1}.template run<first, second>(tile.taps, tile.lo, tile.hi);
    } else if constexpr (NT != 0) {
      piece<NT, first, second, false>(acc, tile, filter0, filter1, at, t);
    } else {
      if constexpr (S == 1) {
        while (count - t >= 7) piece<7, first, second, true>(acc, tile, filter0, filter1, at, t);
      }
      while (count - t >= 4) piece<4, first, second, true>(acc, tile, filter0, filter1, at, t);
      if (count - t >= 2) piece<2, first, second, true>(acc, tile, filter0, filter1, at, t);
      if (count - t >= 1) piece<1, first, second, true>(acc, tile, filter0, filter1, at, t);
    }
  }

  template <int NT, bool first, bool second, bool all>
  static DWCONV_INLINE_MEMBER void piece(Vec<A> (&acc)[2][R], const Tile<T>& tile, const A* filter0, const A* filter1,
                                         const T* at, int64_t& t) {
    const uint32_t inside = bits(tile.lo - t, tile.hi - t, kPositions<R, NT, S>);
    if (inside) {
      Vec<A> weight0[NT], weight1[NT];
      if constexpr (first) load_weights(weight0, filter0 + t * L);
      if constexpr (second) load_weights(weight1, filter1 + t * L);
      positions<NT, first, second, all>(acc, weight0, weight1, at + t * tile.pitch, tile.pitch, inside);
    }
    t += NT;
  }

  // One or two rows of results, any number of rows of taps.
  template <int NT>
  static __attribute__((noinline)) void rolled(const Tile<T>& tile) {
    // Source rows that reach the first row of results: [top0, bottom0); the second: [top1, bottom1).
    const int64_t shift = tile.row_shift;
    const int64_t top0 = std::max<int64_t>(0, tile.top);
    const int64_t bottom0 = std::max(top0, std::min(tile.row_taps, tile.bottom));
    const int64_t top1 = tile.count < 2 ? bottom0 : std::max(shift, tile.top);
    const int64_t bottom1 = tile.count < 2 ? bottom0 : std::max(top1, std::min(shift + tile.row_taps, tile.bottom));
    const A* filter = tile.packed;
    for (int64_t begin = tile.begin; begin < tile.end; begin += L, filter += tile.vector_taps) {
      const int64_t channel = std::min(begin, tile.most);
      const T* at = tile.source + channel;
      Vec<A> acc[2][R];
      start(acc, tile, channel);
      rows<NT, true, false>(acc, tile, at, filter, top0, std::min(bottom0, top1));
      rows<NT, true, true>(acc, tile, at, filter, top1, bottom0);
      rows<NT, false, true>(acc, tile, at, filter, std::max(top1, bottom0), bottom1);
      finish(acc, tile, channel);
    }
  }

  // One row of results that share no position with their neighbours, `period` positions apart; up to kTaps taps in a row.
  static constexpr int kTaps = 32;
  static __attribute__((noinline)) void unshared(const Tile<T>& tile) {
    static_assert(R < 8);
    uint8_t inside[kTaps];
    for (int64_t t = 0; t < tile.taps; ++t) {
      const Range range = dwconv::inside(tile.column + t * tile.step, tile.period, tile.width);
      inside[t] = uint8_t(bits(range.lo, range.hi, R));
    }
    const int64_t top = std::max<int64_t>(0, tile.top), bottom = std::min(tile.row_taps, tile.bottom);
    const A* filters = tile.packed + top * tile.taps * L;
    const int64_t period = tile.pitch / tile.step * tile.period;
    for (int64_t begin = tile.begin; begin < tile.end; begin += L, filters += tile.vector_taps) {
      const int64_t channel = std::min(begin, tile.most);
      const T* row = tile.source + channel + top * tile.row_pitch;
      const A* filter = filters;
      Vec<A> acc[2][R];
      start(acc, tile, channel);
      for (int64_t p = top; p < bottom; ++p, row += tile.row_pitch) {
        for (int64_t t = 0; t < tile.taps; ++t, filter += L) {
          const Vec<A> weight = load(filter);
          const T* at = row + t * tile.pitch;
          const uint32_t here = inside[t];
          if (here == (1u << R) - 1) {
            DWCONV_UNROLL
            for (int r = 0; r < R; ++r) acc[0][r] += weight * load(at + r * period);
          } else {
            DWCONV_UNROLL
            for (int r = 0; r < R; ++r) {
              if (here & (1u << r)) acc[0][r] += weight * load(at + r * period);
            }
          }
        }
      }
      finish(acc, tile, channel);
    }
  }
};

DWCONV_END_TARGET

#endif  // DWCONV_CPU_NHWC_TILE_H
