// forward, contiguous layout (NCHW), 3x3 and 5x5 at a stride of 2, with AVX-512: the tiles of nchw_stride2.h.
//
// Method: a source row meets its taps before its columns are taken apart, since results are fewer than sources. A pair of
// neighbouring columns meets taps 2t and 2t + 1 of the result t pairs before it, in slot t of the sums. A row of float32
// is two loads, multiplied with vectors of alternating taps; permutations, one for each tap of a row of results, bring
// a slot's columns together. In 16-bit types even and odd columns come out of one load by shifts, and slots need only be
// moved. Rows of at most half a vector end two by two.
// Bound: bytes for 3x3; FMA for 5x5, and loads, which straddle lines.

template <class T, int K, bool narrow>
struct Stride2Forward {
  using Problem = Gather<T>;
  using A = Acc<T>;
  using V = Vec<A>;
  using Bits = uint16_t;  // of a mask, as wide as a mask register is loaded
  static constexpr int L = kLanes<A>;
  static constexpr bool kApart = sizeof(T) == 2;  // a row comes as even and odd columns, else as two halves
  static constexpr int kSlots = (K + 1) / 2;
  static constexpr int kWeights = kApart ? K : kSlots;       // vectors of a row of taps
  static constexpr int kParts = narrow && !kApart ? 1 : 2;   // vectors of a row of sources
  static constexpr int kSums = narrow || kApart ? 1 : 2;     // vectors of a slot
  static constexpr int kPicks = kApart ? 1 : 2;              // of a slot, to make results
  static constexpr int kTile = K == 3 || narrow ? 7 : 2;     // rows of results: 5x5 holds 15 weights
  static constexpr int kStrip = narrow ? L / 2 : L - K / 2;  // results whose sources are all in 2 L columns
  static constexpr int64_t kKept = 16;                       // strips, and tiles of a plane, that are made once
  static constexpr int64_t kAhead = 8192 / sizeof(T);        // elements that are fetched ahead, as in nchw_tiles.h

  struct Strip {
    Bits part[2];      // lanes inside, of the vectors of a row of sources
    uint32_t columns;  // those inside
    Bits one, most;    // results to store: of a row, and of two if rows are narrow
  };

  const Problem& problem;
  int64_t width, height, first, shift;  // the window's first column, and pairs of columns left out before it
  bool large;
  Ints<A> index[kSlots][kPicks];  // where each result's columns are, in two vectors of sums

  explicit Stride2Forward(const Problem& problem_)
      : problem(problem_), width(problem.cols.sources), height(problem.rows.sources), large(beyond_caches(problem)) {
    const int64_t pad = problem.cols.pad, results = problem.cols.results;
    first = narrow ? -(pad % 2) : -pad;
    shift = narrow ? pad / 2 : 0;
    for (int t = 0; t < kSlots; ++t) {
      for (int q = 0; q < kPicks; ++q) {
        for (int i = 0; i < L; ++i) {
          const int64_t row = narrow ? (i >= results) + (i >= 2 * results) : 0;
          const int64_t lane = kPicks * (i - row * results + t - shift) + q;
          // The last lane of a narrow window is empty, and so is what lies outside of it.
          const bool empty = narrow && (lane < 0 || lane >= L || row > 1);
          index[t][q][i] = empty ? L - 1 : int(lane + row * L) % (2 * L);
        }
      }
    }
  }

  // Whether rows are narrow: two rows of results in a vector, and lanes to spare in that of a row of sources.
  static bool fits(const Problem& problem) {
    const int64_t window = problem.cols.sources + problem.cols.pad % 2, results = problem.cols.results;
    return results > 0 && 2 * results <= L && window < (kApart ? 2 * L - 1 : L);
  }
  Strip strip(int64_t at) const {
    Strip strip;
    const int64_t base = first + at * 2 * kStrip, count = std::min<int64_t>(kStrip, problem.cols.results - at * kStrip);
    for (int v = 0; v < 2; ++v) {
      const Range valid = kApart ? inside(base + v, 2, width) : inside(base + v * L, 1, width);
      strip.part[v] = Bits(lanes<A>(valid.lo, valid.hi).bits);
    }
    const auto below = [&](int64_t end) { return _bzhi_u32(~0u, unsigned(std::clamp<int64_t>(end - base, 0, 32))); };
    strip.columns = below(width) & ~below(0);
    strip.one = Bits(lanes<A>(0, count).bits);
    strip.most = narrow ? Bits(lanes<A>(0, 2 * count).bits) : strip.one;
    return strip;
  }

  static DWCONV_INLINE_MEMBER Mask<A> mask_of(Bits bits) {
    Mask<A> mask = {};
    mask.bits = bits;
    return mask;
  }

  // Two neighbouring taps by turns.
  static DWCONV_INLINE_MEMBER V alternating(const A* tap) {
    if constexpr (sizeof(A) == 4) {
      return (V)_mm512_castpd_ps(_mm512_set1_pd(load_bytes<double>(tap)));
    } else {
      return (V)_mm512_maskz_broadcast_f64x2(0xff, _mm_loadu_pd(tap));
    }
  }

  // Taps and bias of a filter. They stay out of memory: what was just stored there is slow to load.
  struct Filter {
    V weight[K][kWeights], bias;
  };

  DWCONV_INLINE_MEMBER Filter load_filter(int64_t channel) const {
    Filter result;
    V(&weight)[K][kWeights] = result.weight;
    const T* filter = problem.weight + channel * problem.taps;
    if constexpr (kApart) {
      A taps[2 * L];
      store(taps, load(filter, lanes<A>(0, K * K)));
      store(taps + L, load(filter + L, lanes<A>(0, K * K - L)));
      DWCONV_UNROLL
      for (int i = 0; i < K * K; ++i) weight[i / K][i % K] = broadcast<A>(taps[i]);
    } else {
      DWCONV_UNROLL
      for (int k = 0; k < K; ++k, filter += K) {
        DWCONV_UNROLL
        for (int t = 0; t < K / 2; ++t) weight[k][t] = alternating(filter + 2 * t);
        weight[k][K / 2] = broadcast<A>(filter[K - 1]);
      }
    }
    result.bias = broadcast<A>(problem.bias ? to_acc(problem.bias[channel]) : A(0));
    return result;
  }

  static DWCONV_INLINE_MEMBER void load_row(const T* p, const __mmask16 (&part)[2], __mmask32 columns, V& a, V& b) {
    if constexpr (kApart) {
      const Bits32 both = (Bits32)_mm512_maskz_loadu_epi16(columns, p);
      if constexpr (std::is_same_v<T, bf16>) {
        a = (V)(both << 16), b = (V)(both & 0xffff0000u);
      } else {
        a = widen(__builtin_convertvector(both, Half16), T{});
        b = widen(__builtin_convertvector(both >> 16, Half16), T{});
      }
    } else {
      a = load(p, mask_of(part[0]));
      if (kParts == 2) b = load(p + L, mask_of(part[1]));
    }
  }

  // A row of results out of its sums, or two.
  DWCONV_INLINE_MEMBER V total(V bias, const V (&sums)[kSlots][kSums], const V (&next)[kSlots][kSums]) const {
    V sum = bias;
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
    return sum;
  }

  // R rows of results of a strip. Of their rows of sources, from p on, those in the middle are inside; `edges` says it of
  // the others, if there is a border.
  template <int R, bool border>
  DWCONV_INLINE_MEMBER void tile(const Filter& filter, const Strip& strip, const uint32_t* edges, const T* p,
                                 T* to) const {
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
      const __mmask16 part[2] = {strip.part[0], strip.part[1]};
      const __mmask32 columns = strip.columns;
      const bool middle = i >= K - 1 && i <= 2 * R - 2;
      if (!border || middle || __builtin_expect(edges[i] != 0, 1)) {
        V a, b = {};
        load_row(p, part, columns, a, b);
        opaque(a);
        if (kParts == 2) opaque(b);
        if (i < 2 * R) __builtin_prefetch(p + kAhead);
        if (i < 2 * R && kSums == 2) __builtin_prefetch(p + kAhead + L);
        DWCONV_UNROLL
        for (int r = 0; r < R; ++r) {
          const int k = i - 2 * r;
          if (k < 0 || k >= K) continue;
          DWCONV_UNROLL
          for (int t = 0; t < kSlots; ++t) {
            V &low = sums[r][t][0], &high = sums[r][t][kSums - 1];
            low = add_product<A>(low, filter.weight[k][kApart ? 2 * t : t], a, mask_of(part[0]));
            if (kParts == 1 || (kApart && 2 * t + 1 == K)) continue;
            high = add_product<A>(high, filter.weight[k][kApart ? 2 * t + 1 : t], b, mask_of(part[1]));
          }
        }
      }
      if (i < K - 1 || i % 2 != 0) continue;
      const int r = (i - K + 1) / 2;
      if (!narrow) out[r] = total(filter.bias, sums[r], sums[r]);
      if (narrow && r % 2 == 1) out[r / 2] = total(filter.bias, sums[r - 1], sums[r]);
      if (narrow && r % 2 == 0 && r == R - 1) out[r / 2] = total(filter.bias, sums[r], sums[r]);
    }
    activate<A>(out, problem.activation);
    const int64_t step = problem.cols.results * (narrow ? 2 : 1);
    constexpr int kOut = int(sizeof out / sizeof(V));
    DWCONV_UNROLL
    for (int o = 0; o < kOut; ++o, to += step) {
      opaque(to);
      store(to, out[o], mask_of(o + 1 < kOut || R % 2 == 0 ? strip.most : strip.one));
      if (large) __builtin_prefetch(to + kAhead, 1);
    }
  }

  // R rows of results from row j on, of any plane.
  template <int R>
  struct Rows {
    int64_t source, result;  // where they begin
    bool border;
    uint32_t edges[2 * R - 2 + K];
  };
  template <int R>
  Rows<R> rows(int64_t j) const {
    const int64_t row = 2 * j - problem.rows.pad;
    Rows<R> rows = {row * width + first, j * problem.cols.results, false, {}};
    for (int i = 0; i < 2 * R - 2 + K; ++i) {
      rows.edges[i] = row + i >= 0 && row + i < height ? ~0u : 0u;
      rows.border = rows.border || rows.edges[i] == 0;
    }
    return rows;
  }

  template <int R>
  DWCONV_INLINE_MEMBER void all_strips(const Filter& filter, const Rows<R>& rows, const Strip* kept, int64_t strips,
                                       const T* source, T* result) const {
    const T* p = source + rows.source;
    T* to = result + rows.result;
    if constexpr (narrow) return tile<R, true>(filter, kept[0], rows.edges, p, to);
    for (int64_t at = 0; at < strips; ++at, p += 2 * kStrip, to += kStrip) {
      Strip spare;
      if (at >= kKept) spare = strip(at);
      const Strip& lanes = at < kKept ? kept[at] : spare;
      if (R == 1 || rows.border) {
        tile<R, true>(filter, lanes, rows.edges, p, to);
      } else {
        tile<R, false>(filter, lanes, rows.edges, p, to);
      }
    }
  }

  // What tiles do not take. Apart, or what this keeps would push the weights of the tiles out of their registers.
  __attribute__((noinline)) void row(int64_t channel, int64_t j, const Strip* kept, int64_t strips, const T* source,
                                     T* result) const {
    all_strips<1>(load_filter(channel), rows<1>(j), kept, strips, source, result);
  }

 private:
  static bool beyond_caches(const Problem& problem) {
    const int64_t plane = problem.rows.sources * problem.cols.sources + problem.rows.results * problem.cols.results;
    return problem.images * problem.channels * plane * int64_t(sizeof(T)) > int64_t(16) << 20;
  }
};

// Over the planes. Items are bands of planes.
template <class Tiles>
struct Stride2ForwardWalk {
  using Problem = typename Tiles::Problem;
  static constexpr int kTile = Tiles::kTile;
  static constexpr int64_t kKept = Tiles::kKept;

  static int64_t parts(const Problem& problem) {
    return bands(problem.rows.results, 14, problem.images * problem.channels);
  }
  static int64_t items(const Problem& problem) { return problem.images * problem.channels * parts(problem); }

  static __attribute__((noinline)) void run(const Problem& problem, int64_t begin, int64_t end) {
    if (begin >= end) return;
    const Tiles tiles(problem);
    const int64_t results = problem.rows.results, strips = ceil_div(problem.cols.results, Tiles::kStrip);
    const int64_t cut = parts(problem), length = ceil_div(results, cut), channels = problem.channels;
    const int64_t source_plane = tiles.height * tiles.width, result_plane = results * problem.cols.results;
    // Whether the rows in the middle of every tile are inside.
    const bool regular = problem.rows.pad < problem.rows.kernel && 2 * results - 2 - problem.rows.pad < tiles.height;
    typename Tiles::Strip kept[kKept];
    for (int64_t at = 0; at < std::min(strips, kKept); ++at) kept[at] = tiles.strip(at);
    typename Tiles::template Rows<kTile> kept_rows[kKept];
    for (int64_t i = 0; cut == 1 && i < std::min(ceil_div(results, kTile), kKept); ++i) {
      kept_rows[i] = tiles.template rows<kTile>(std::min(i * kTile, results - kTile));
    }
    int64_t plane = begin / cut, part = begin % cut, channel = plane % channels;
    const auto* source = problem.source + plane * source_plane;
    auto* result = problem.result + plane * result_plane;
    for (int64_t item = begin; item < end; ++item) {
      const auto filter = tiles.load_filter(channel);
      const int64_t from = part * length, to = std::min(results, from + length);
      if (__builtin_expect(regular && to - from >= kTile, 1)) {
        // The last tile may start early, and compute rows a second time to the same bits.
        for (int64_t j = from, i = 0; j < to; j += kTile, ++i) {
          typename Tiles::template Rows<kTile> spare;
          const bool known = cut == 1 && i < kKept;
          if (!known) spare = tiles.template rows<kTile>(std::min(j, to - kTile));
          tiles.template all_strips<kTile>(filter, known ? kept_rows[i] : spare, kept, strips, source, result);
        }
      } else {
        for (int64_t j = from; j < to; ++j) tiles.row(channel, j, kept, strips, source, result);
      }
      if (++part < cut) continue;
      part = 0, source += source_plane, result += result_plane;
      if (++channel == channels) channel = 0;
    }
  }
};
