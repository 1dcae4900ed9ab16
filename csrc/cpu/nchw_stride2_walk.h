// The walk of nchw_stride2.h over planes, and what its tiles share. Steps are rows of results in forward, pairs of rows in
// grad_input; a tile takes kTile of them, or at least kLeast.

// 16 bits: a mask of 32 goes through a general register.
template <class A>
DWCONV_INLINE Mask<A> stride2_mask(uint16_t bits) {
  Mask<A> mask = {};
  mask.bits = bits;
  return mask;
}

// More than caches hold: fetch the lines of the results, too.
template <class T>
static bool stride2_large(const Gather<T>& problem) {
  const int64_t plane = problem.rows.sources * problem.cols.sources + problem.rows.results * problem.cols.results;
  return problem.images * problem.channels * plane * int64_t(sizeof(T)) > int64_t(16) << 20;
}

// The N taps of a filter, each for all lanes. A few stay in registers, and out of memory: what was just stored there is
// slow to load. More would push sums out, and are loaded where they are needed.
template <class T, int N>
struct Stride2Taps {
  using A = Acc<T>;
  static constexpr int L = kLanes<A>;
  static constexpr bool kInRegisters = N <= 9, kConverted = !std::is_same_v<T, A>;

  A values[kConverted ? (N + L - 1) / L * L : 1];
  Vec<A> vector[kInRegisters ? N : 1];
  const T* filter;

  DWCONV_INLINE_MEMBER void load_from(const T* from) {
    filter = from;
    if constexpr (kConverted) {
      DWCONV_UNROLL
      for (int i = 0; i < N; i += L) store(values + i, load(from + i, lanes<A>(0, N - i)));
    }
    if constexpr (kInRegisters) {
      DWCONV_UNROLL
      for (int i = 0; i < N; ++i) vector[i] = broadcast<A>(first()[i]);
    }
  }
  // Where at() may load from: asked for anew, it makes at() load anew.
  DWCONV_INLINE_MEMBER const A* memory() const {
    const A* p = first();
    if constexpr (!kInRegisters) opaque(p);
    return p;
  }
  DWCONV_INLINE_MEMBER Vec<A> at(int i, [[maybe_unused]] const A* memory) const {
    if constexpr (kInRegisters) return vector[i];
    return broadcast<A>(memory[i]);
  }

 private:
  DWCONV_INLINE_MEMBER const A* first() const {
    if constexpr (kConverted) return values;
    if constexpr (!kConverted) return filter;
  }
};

// Items are bands of planes.
template <class Tiles>
struct Stride2Walk {
  using Problem = typename Tiles::Problem;
  using T = std::remove_pointer_t<decltype(Problem::result)>;
  using Strip = typename Tiles::Strip;
  using Filter = typename Tiles::Filter;
  template <int R>
  using Rows = typename Tiles::template Rows<R>;
  static constexpr int kTile = Tiles::kTile, kVectors = Tiles::kVectors;
  static constexpr int64_t kKept = 16;

  static int64_t parts(const Problem& problem) {
    return bands(Tiles::steps(problem), 14, problem.images * problem.channels);
  }
  static int64_t items(const Problem& problem) { return problem.images * problem.channels * parts(problem); }

  // Strips that are made once, and the number of all.
  struct Strips {
    Strip kept[kKept];
    int64_t count;
    Strips(const Tiles& tiles) : count(ceil_div(tiles.problem.cols.results, Tiles::kStrip)) {
      for (int64_t at = 0; at < std::min(count, kKept); ++at) kept[at] = tiles.strip(at);
    }
  };

  template <int R>
  static DWCONV_INLINE_MEMBER void all_strips(const Tiles& tiles, const Filter& filter, const Rows<R>& rows,
                                              const Strips& strips, const T* source, T* result) {
    const T* p = source + rows.source;
    T* to = result + rows.result;
    if constexpr (Tiles::kNarrow) return tiles.template tile<R, true>(filter, strips.kept[0], rows, p, to);
    for (int64_t at = 0; at < strips.count; ++at, p += Tiles::kSourceStep, to += Tiles::kStrip) {
      Strip spare;
      if (at >= kKept) spare = tiles.strip(at);
      const Strip& strip = at < kKept ? strips.kept[at] : spare;
      if (R == 1 || rows.border) {
        tiles.template tile<R, true>(filter, strip, rows, p, to);
      } else {
        tiles.template tile<R, false>(filter, strip, rows, p, to);
      }
    }
  }

  // What tiles do not take. Apart, or what this keeps would push the weights of the tiles out of their registers.
  static __attribute__((noinline)) void step(const Tiles& tiles, int64_t channel, int64_t j, const Strips& strips,
                                             const T* source, T* result) {
    Filter filter;
    tiles.load_filter(filter, channel);
    all_strips<1>(tiles, filter, tiles.template rows<1>(j, j + 1), strips, source, result);
  }

  static __attribute__((noinline)) void run(const Problem& problem, int64_t begin, int64_t end) {
    if (begin >= end) return;
    const Tiles tiles(problem);
    const Strips strips(tiles);
    const int64_t steps = Tiles::steps(problem), cut = parts(problem), length = ceil_div(steps, cut);
    const int64_t channels = problem.channels, source_plane = tiles.height * tiles.width;
    const int64_t result_plane = problem.rows.results * problem.cols.results;
    const bool regular = tiles.regular();
    // The last tile may start early, and compute results a second time to the same bits.
    const auto tile = [&](int64_t from, int64_t j, int64_t to) {
      return tiles.template rows<kVectors>(std::max(from, std::min(j, to - kTile)), to);
    };
    Rows<kVectors> kept[kKept];
    const int64_t known = cut == 1 && regular ? std::min(ceil_div(steps, kTile), kKept) : 0;
    for (int64_t i = 0; i < known; ++i) kept[i] = tile(0, i * kTile, steps);
    int64_t plane = begin / cut, part = begin % cut, channel = plane % channels;
    const T* source = problem.source + plane * source_plane;
    T* result = problem.result + plane * result_plane;
    for (int64_t item = begin; item < end; ++item) {
      Filter filter;
      tiles.load_filter(filter, channel);
      const int64_t from = part * length, to = std::min(steps, from + length);
      if (__builtin_expect(regular && to - from >= Tiles::kLeast, 1)) {
        for (int64_t j = from, i = 0; j < to; j += kTile, ++i) {
          Rows<kVectors> spare;
          if (i >= known) spare = tile(from, j, to);
          all_strips<kVectors>(tiles, filter, i < known ? kept[i] : spare, strips, source, result);
        }
      } else {
        for (int64_t j = from; j < to; ++j) step(tiles, channel, j, strips, source, result);
      }
      if (++part < cut) continue;
      part = 0, source += source_plane, result += result_plane;
      if (++channel == channels) channel = 0;
    }
  }
};
