// The two inner loops of every vectorised kernel, and the walk of tiles over a lattice.
//
// A tile is R neighbouring results of a refined lattice (lattice.h), one vector each. Position i of the tile is source
// tap_step*i away from its first one; result r reads positions S*r + t. In NCHW a vector runs along the row and the
// lattice goes down the plane; in NHWC a vector runs over channels and the lattice goes along the row. Both keep the R
// accumulators and the NT weights in registers, and load each position once for all the results that it reaches.
#if defined(DWCONV_CPU_AXIS_TILE_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_AXIS_TILE_H
#undef DWCONV_CPU_AXIS_TILE_H
#else
#define DWCONV_CPU_AXIS_TILE_H
#endif

#include "../simd/lanes.h"
#include "lattice.h"

DWCONV_BEGIN_TARGET

// ---- where a position's vector comes from ---------------------------------------------------------------------------

// How the lanes of a vector lie in memory.
enum class Lanes {
  contiguous,  // next to each other
  even,        // every second element: a row at stride 2
  strided,     // every step-th element
  repeated,    // each input channel once for every output channel that it feeds: lane l is element index[l]
};

template <class T, Lanes kind>
struct Source {
  using A = Acc<T>;

  const T* p;  // position 0
  int64_t pitch;
  Mask<A> mask;
  int64_t step;   // strided
  Ints<A> index;  // repeated

  // Whether the loads of the inner loop may be this source's own; if not, it reads positions that were collected.
  DWCONV_INLINE_MEMBER bool direct() const {
    if constexpr (kind == Lanes::contiguous) return kNativeMasks<T> || mask.full();
    if constexpr (kind == Lanes::even) return kVecBytes == 64 || mask.full();
    return kVecBytes == 64 && kind == Lanes::repeated;
  }

  DWCONV_INLINE_MEMBER Vec<A> operator()(const T* at) const {
    if constexpr (kind == Lanes::contiguous) return kNativeMasks<T> ? load(at, mask) : load(at);
    if constexpr (kind == Lanes::even) return kVecBytes == 64 ? load_even(at, mask) : load_even(at, LaneIndices<A>{});
    if constexpr (kind == Lanes::repeated) return permute<A>(load(at, mask), index);
    return Vec<A>{};
  }

  // The same for any mask and step.
  static __attribute__((noinline)) void collect(const Source& source, Vec<A>* collected, int lo, int hi) {
    for (int i = lo; i < hi; ++i) {
      const T* at = source.p + i * source.pitch;
      if constexpr (kind == Lanes::repeated) {
        collected[i] = permute<A>(load(at, source.mask), source.index);
      } else {
        collected[i] = load_strided(at,
                                    kind == Lanes::contiguous ? 1
                                    : kind == Lanes::even     ? 2
                                                              : source.step,
                                    source.mask);
      }
    }
  }
};

template <class A>
struct Collected {
  const Vec<A>* p;
  static constexpr int64_t pitch = 1;
  DWCONV_INLINE_MEMBER Vec<A> operator()(const Vec<A>* at) const { return *at; }
};

// ---- inner loops ----------------------------------------------------------------------------------------------------

// Result r of the tile that position i reaches through tap t, or -1.
template <int R, int S>
constexpr int reached(int i, int t) {
  return i >= t && (i - t) % S == 0 && (i - t) / S < R ? (i - t) / S : -1;
}

template <int R, int NT, int S>
constexpr int kPositions = S * (R - 1) + NT;

// acc[r] += sum over t of weight[t] * source(S*r + t), for positions i whose bit is set in `inside`
struct ToResults {
  template <int R, int NT, int S, class A, class Position>
  static DWCONV_INLINE_MEMBER void loop(Vec<A> (&acc)[R], const Vec<A> (&weight)[NT], const Position& source,
                                        uint32_t inside) {
    auto at = source.p;
    DWCONV_UNROLL
    for (int i = 0; i < kPositions<R, NT, S>; ++i, at += source.pitch) {
      if (!(inside >> i & 1)) continue;
      const Vec<A> value = source(at);
      DWCONV_UNROLL
      for (int t = 0; t < NT; ++t) {
        if (reached<R, S>(i, t) >= 0) acc[reached<R, S>(i, t)] += weight[t] * value;
      }
    }
  }
};

// acc[t] += sum over r of grad[r] * source(S*r + t), for positions i whose bit is set in `inside`
struct ToTaps {
  template <int R, int NT, int S, class A, class Position>
  static DWCONV_INLINE_MEMBER void loop(Vec<A> (&acc)[NT], const Vec<A> (&grad)[R], const Position& source,
                                        uint32_t inside) {
    auto at = source.p;
    DWCONV_UNROLL
    for (int i = 0; i < kPositions<R, NT, S>; ++i, at += source.pitch) {
      if (!(inside >> i & 1)) continue;
      const Vec<A> value = source(at);
      DWCONV_UNROLL
      for (int t = 0; t < NT; ++t) {
        if (reached<R, S>(i, t) >= 0) acc[t] += grad[reached<R, S>(i, t)] * value;
      }
    }
  }
};

// Runs one of the loops above, S = 0 as S = 1, on the source's own loads where they can be inlined, else on collected ones.
template <class Loop, int R, int NT, int S, class T, Lanes kind, class Sums, class Factors>
DWCONV_INLINE void correlate(Sums& sums, const Factors& factors, const Source<T, kind>& source, Range range) {
  using A = Acc<T>;
  constexpr int kReuse = S == 0 ? 1 : S, kCount = kPositions<R, NT, kReuse>;
  const int lo = int(std::min<int64_t>(range.lo, kCount)), hi = int(std::min<int64_t>(range.hi, kCount));
  static_assert(kCount < 32);
  const uint32_t inside = ((1u << hi) - 1) & ~((1u << lo) - 1);
  if constexpr (kind != Lanes::strided && (kind != Lanes::repeated || kVecBytes == 64)) {
    if (source.direct()) return Loop::template loop<R, NT, kReuse, A>(sums, factors, source, inside);
  }
  Vec<A> collected[kCount];
  source.collect(source, collected, lo, hi);
  Loop::template loop<R, NT, kReuse, A>(sums, factors, Collected<A>{collected}, inside);
}

// Whether forward and grad_input of channels_last add each row of taps up by itself: where no wider type holds the sums of
// large kernels. Contiguous kernels of such sizes do so anyhow.
template <class A>
constexpr bool kSumsByRow = sizeof(A) == 8;

// ---- tiles and taps -------------------------------------------------------------------------------------------------

constexpr int kTile = 7;  // divides the 7, 14, 28, 56 and 112 that image networks are made of

// Calls body.tile<R>(j) so that the tiles cover [begin, end). S as above; 0 where neighbours share no source, which
// leaves tiles of one. With `overlap` the last tile may start early and compute some results twice, to the same bits.
template <int S, bool overlap, class Body>
DWCONV_INLINE void for_tiles(const Body& body, int64_t begin, int64_t end) {
  int64_t j = begin;
  if constexpr (S != 0) {
    const bool may_overlap = overlap && end - begin >= kTile;
    for (; j + kTile <= end || (may_overlap && end - j > kTile / 2); j += kTile) {
      body.template tile<kTile>(std::min(j, end - kTile));
    }
  }
  if constexpr (S == 1) {
    for (; j + 3 <= end; j += 3) body.template tile<3>(j);
  }
  for (; j < end; ++j) body.template tile<1>(j);
}

// Calls body.piece<NT>(t) so that the pieces cover [0, taps).
template <class Body>
DWCONV_INLINE void for_pieces(const Body& body, int64_t taps) {
  int64_t t = 0;
  for (; taps - t >= 7; t += 7) body.template piece<7>(t);
  if (taps - t >= 5) body.template piece<5>(t), t += 5;
  if (taps - t >= 3) body.template piece<3>(t), t += 3;
  if (taps - t == 2) body.template piece<2>(t), t += 2;
  if (taps - t == 1) body.template piece<1>(t);
}

DWCONV_END_TARGET

#endif  // DWCONV_CPU_AXIS_TILE_H
