// The walk of the kernel `phases` over planes, and what its tiles share. Steps are rows of results in forward, pairs of
// rows in grad_input. A tile takes kTile of them, or at least kLeast.
#if defined(DWCONV_CPU_NCHW_PHASES_WALK_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_NCHW_PHASES_WALK_H
#undef DWCONV_CPU_NCHW_PHASES_WALK_H
#else
#define DWCONV_CPU_NCHW_PHASES_WALK_H
#endif

#include "../axis/bands.h"
#include "../axis/gather.h"
#include "phases_masks.h"

DWCONV_BEGIN_TARGET
#if DWCONV_VEC_BYTES >= 32

// Whether products of N taps with zeros are zeros.
template <int N, class T>
DWCONV_INLINE bool all_finite(const T* taps) {
  if constexpr (sizeof(T) == 2) {
    constexpr uint16_t kExponent = std::is_same_v<T, bf16> ? 0x7f80 : 0x7c00;
    bool finite = true;
    for (int i = 0; i < N; ++i) finite = finite & ((load_bytes<uint16_t>(taps + i) & kExponent) != kExponent);
    return finite;
  } else {
    T zero = 0;
    for (int i = 0; i < N; ++i) zero += taps[i] * T(0);
    return zero == 0;
  }
}

// The N taps of a filter, each for all lanes. A few stay in registers, and out of memory: what was just stored there is
// slow to load. More would push sums out, and are loaded where they are needed.
template <class T, int N>
struct PhaseTaps {
  using A = Acc<T>;
  static constexpr int L = kLanes<A>;
  // Only AVX-512 broadcasts an operand from memory: elsewhere taps lie there as vectors.
  static constexpr bool kAsVectors = kVecBytes < 64, kInRegisters = N <= 9 && !kAsVectors;
  static constexpr bool kConverted = !std::is_same_v<T, A>;

  A values[kConverted ? (N + L - 1) / L * L : 1];
  Vec<A> vector[kInRegisters || kAsVectors ? N : 1];
  const T* filter;

  DWCONV_INLINE_MEMBER void load_from(const T* from) {
    filter = from;
    if constexpr (kConverted) {
      DWCONV_UNROLL
      for (int i = 0; i < N; i += L) store(values + i, load(from + i, lanes<A>(0, N - i)));
    }
    if constexpr (kInRegisters || kAsVectors) {
      DWCONV_UNROLL
      for (int i = 0; i < N; ++i) vector[i] = broadcast<A>(first()[i]);
    }
  }
  // Where at() may load from: asked for anew, it makes at() load anew.
  DWCONV_INLINE_MEMBER const A* memory() const {
    const A* p = kAsVectors ? reinterpret_cast<const A*>(vector) : first();
    if constexpr (!kInRegisters) opaque(p);
    return p;
  }
  DWCONV_INLINE_MEMBER Vec<A> at(int i, [[maybe_unused]] const A* memory) const {
    if constexpr (kInRegisters) return vector[i];
    if constexpr (kAsVectors) return load_bytes<Vec<A>>(memory + i * L);
    return broadcast<A>(memory[i]);
  }

 private:
  DWCONV_INLINE_MEMBER const A* first() const {
    if constexpr (kConverted) return values;
    if constexpr (!kConverted) return filter;
  }
};

// A plan: what a walk with these tiles knows from the shape. Items are bands of planes.
template <class Tiles>
class PhaseWalk {
 public:
  using T = typename Tiles::Element;
  using Call = GatherCall<T>;

  explicit PhaseWalk(const Gather& problem)
      : tiles_(problem),
        strips_(tiles_),
        steps_(Tiles::steps(problem)),
        parts_(parts(problem)),
        part_steps_(ceil_div(steps_, parts_)),
        regular_(tiles_.regular()),
        known_(parts_ == 1 && regular_ ? std::min(ceil_div(steps_, kTile), kKept) : 0) {
    for (int64_t i = 0; i < known_; ++i) kept_[i] = tile_rows(0, i * kTile, steps_);
  }

  static int64_t parts(const Gather& problem) { return bands(Tiles::steps(problem), 14, problem.planes()); }

  static __attribute__((noinline)) void run(const void* part, const Call& call, int64_t begin, int64_t end) {
    if (begin < end) static_cast<const PhaseWalk*>(part)->walk(call, begin, end);
  }

 private:
  using Strip = typename Tiles::Strip;
  using Filter = typename Tiles::Filter;
  template <int R>
  using Rows = typename Tiles::template Rows<R>;
  static constexpr int kTile = Tiles::kTile, kVectors = Tiles::kVectors;
  static constexpr int64_t kKept = 16;

  // Strips that are made once, and the number of all.
  struct Strips {
    Strip kept[kKept];
    int64_t count;
    explicit Strips(const Tiles& tiles) : count(ceil_div(tiles.problem.cols.results, Tiles::kStrip)) {
      for (int64_t at = 0; at < std::min(count, kKept); ++at) kept[at] = tiles.strip(at);
    }
  };

  // The rows of the tile at step j, of steps [from, to). The last tile may start early, and compute results a second time
  // to the same bits.
  Rows<kVectors> tile_rows(int64_t from, int64_t j, int64_t to) const {
    return tiles_.template rows<kVectors>(std::max(from, std::min(j, to - kTile)), to);
  }

  template <int R>
  static DWCONV_INLINE_MEMBER void all_strips(const Tiles& tiles, const Strips& strips, const Filter& filter,
                                              const Rows<R>& rows, Activation activation, const T* source, T* result) {
    const T* p = source + rows.source;
    T* to = result + rows.result;
    if constexpr (Tiles::kNarrow) {
      return tiles.template tile<R, true>(filter, strips.kept[0], rows, activation, p, to);
    }
    for (int64_t at = 0; at < strips.count; ++at, p += Tiles::kSourceStep, to += Tiles::kStrip) {
      Strip spare;
      if (at >= kKept) spare = tiles.strip(at);
      const Strip& strip = at < kKept ? strips.kept[at] : spare;
      if (R == 1 || rows.border) {
        tiles.template tile<R, true>(filter, strip, rows, activation, p, to);
      } else {
        tiles.template tile<R, false>(filter, strip, rows, activation, p, to);
      }
    }
  }

  // What tiles do not take. Apart, or what this keeps would push the weights of the tiles out of their registers.
  __attribute__((noinline)) void step(const Call& call, int64_t channel, int64_t j, const T* source, T* result) const {
    Filter filter;
    tiles_.load_filter(filter, call, channel);
    all_strips<1>(tiles_, strips_, filter, tiles_.template rows<1>(j, j + 1), call.activation, source, result);
  }

  DWCONV_INLINE_MEMBER void walk(const Call& call, int64_t begin, int64_t end) const {
    // Copies: what a store of results cannot change stays in registers. Measured: 1.1x of the plan's own, in 16-bit types.
    const Tiles tiles = tiles_;
    const Strips strips = strips_;
    const int64_t steps = steps_, parts = parts_, part_steps = part_steps_, known = known_, channels = call.channels;
    const bool regular = regular_;
    const Activation activation = call.activation;
    const int64_t source_plane = call.source_plane(), result_plane = call.result_plane();
    int64_t plane = begin / parts, part = begin % parts, channel = plane % channels;
    const T* source = call.source + plane * source_plane;
    T* result = call.result + plane * result_plane;
    for (int64_t item = begin; item < end; ++item) {
      Filter filter;
      tiles.load_filter(filter, call, channel);
      const int64_t from = part * part_steps, to = std::min(steps, from + part_steps);
      if (__builtin_expect(regular && to - from >= Tiles::kLeast && tiles.takes(filter), 1)) {
        for (int64_t j = from, i = 0; j < to; j += kTile, ++i) {
          Rows<kVectors> spare;
          if (i >= known) spare = tile_rows(from, j, to);
          all_strips<kVectors>(tiles, strips, filter, i < known ? kept_[i] : spare, activation, source, result);
        }
      } else {
        for (int64_t j = from; j < to; ++j) step(call, channel, j, source, result);
      }
      if (++part < parts) continue;
      part = 0, source += source_plane, result += result_plane;
      if (++channel == channels) channel = 0;
    }
  }

  Tiles tiles_;
  Strips strips_;
  int64_t steps_, parts_, part_steps_;  // of a plane, bands of it, steps of a band
  bool regular_;
  int64_t known_;  // tiles whose rows are kept
  Rows<kVectors> kept_[kKept];
};

#endif
DWCONV_END_TARGET

#endif  // DWCONV_CPU_NCHW_PHASES_WALK_H
