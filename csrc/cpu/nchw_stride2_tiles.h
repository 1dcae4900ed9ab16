// The tiles of nchw_stride2.h: seven rows of a strip of forward, seven pairs of rows of grad_input. In registers, the
// columns of a source row are taken apart, or those of a result interleaved.

// A tile down one strip of a plane, or of two planes side by side.
template <int K>
struct Stride2 {
  using V = Vec<float>;
  static constexpr int L = kLanes<float>;
  static constexpr int kTile = 7;  // divides what image networks are made of
  // As in nchw_tiles.h: how far ahead tensors are fetched that no cache holds.
  static constexpr int64_t kAhead = 8192 / sizeof(float);
  static constexpr int64_t kLarge = int64_t(16) << 20;

  const Gather<float>& problem;
  int64_t width, height;  // of the sources
  bool large;
  V weight[K][K];

  // The lanes of a strip.
  struct Strip {
    __mmask16 taps[K];                             // whose source is inside, by kernel column
    __mmask16 low, high, past;                     // forward: of a row of sources
    __mmask16 shift[K / 2 + 1], other[K / 2 + 1];  // grad_input: of a row of sources, at each shift
    __mmask16 first, second;                       // of a row of results
  };

  explicit Stride2(const Gather<float>& problem_)
      : problem(problem_), width(problem.cols.sources), height(problem.rows.sources) {
    large = beyond_caches(problem);
  }

  static bool beyond_caches(const Gather<float>& problem) {
    const Axis &rows = problem.rows, &cols = problem.cols;
    const int64_t plane = rows.sources * cols.sources + rows.results * cols.results;
    return problem.images * problem.channels * plane * int64_t(sizeof(float)) > kLarge;
  }

  static __mmask16 mask(int64_t lo, int64_t hi) { return __mmask16(lanes<float>(lo, hi).bits); }
  static V masked(__mmask16 lanes, const float* p) { return (V)_mm512_maskz_loadu_ps(lanes, p); }

  // The lower half of the lanes is for one filter and the upper for the other, if there are two.
  template <bool pair>
  DWCONV_INLINE_MEMBER void load_weights(const Strip& strip, const float* filter, const float* other) {
    DWCONV_UNROLL
    for (int k = 0; k < K; ++k) {
      DWCONV_UNROLL
      for (int u = 0; u < K; ++u) {
        const __m512 lower =
            _mm512_maskz_broadcastss_ps(pair ? strip.taps[u] & 0xff : strip.taps[u], _mm_set_ss(filter[k * K + u]));
        weight[k][u] = (V)lower;
        if (pair) {
          weight[k][u] = (V)_mm512_mask_broadcastss_ps(lower, strip.taps[u] & 0xff00, _mm_set_ss(other[k * K + u]));
        }
      }
    }
  }
};

template <int K, bool pair>
struct Stride2Forward : Stride2<K> {
  using Base = Stride2<K>;
  using V = typename Base::V;
  using Base::L, Base::problem, Base::width, Base::height, Base::weight;
  using Strip = typename Base::Strip;
  Ints<float> index[K];  // where the lanes of a tap are

  explicit Stride2Forward(const Gather<float>& problem_) : Base(problem_) {
    for (int u = 0; u < K; ++u) {
      for (int i = 0; i < L; ++i) {
        if (pair) {  // a row of each plane in a vector; lane 15 is zero
          const int64_t at = 2 * (i % (L / 2)) + u - problem.cols.pad;
          index[u][i] = at >= 0 && at < width ? int(at) + i / (L / 2) * L : L - 1;
        } else if (u < 2) {
          index[u][i] = 2 * i + u;
        } else {  // the even or odd columns further on, then those past two vectors
          index[u][i] = i + u / 2 < L ? i + u / 2 : L + 2 * (i + u / 2 - L) + u % 2;
        }
      }
    }
  }

  static int64_t lattice_rows(const Gather<float>& problem) { return problem.rows.results; }
  static int64_t strips(const Gather<float>& problem) { return ceil_div(problem.cols.results, L); }

  Strip strip(int64_t at) const {
    Strip lanes = {};
    const int64_t base = at * 2 * L - problem.cols.pad, count = problem.cols.results - at * L;
    for (int u = 0; u < K; ++u) {
      const Range valid = inside(base + u, 2, width);
      lanes.taps[u] = Base::mask(valid.lo, std::min(valid.hi, count));
      if (pair) lanes.taps[u] |= lanes.taps[u] << L / 2;
    }
    lanes.first = Base::mask(0, count);
    if (pair) {
      lanes.low = Base::mask(0, width);
      lanes.second = Base::mask(L / 2, L / 2 + count);
    } else {
      lanes.low = Base::mask(-base, width - base);
      lanes.high = Base::mask(-base - L, width - base - L);
      lanes.past = Base::mask(-base - 2 * L, std::min<int64_t>(K - 2, width - base - 2 * L));
    }
    return lanes;
  }

  // R rows of results from row j on.
  template <int R>
  DWCONV_INLINE_MEMBER void tile(const Strip& lanes, const float* source, const float* other, float* result,
                                 float* other_result, V bias, int64_t strip, int64_t j) const {
    const int64_t row = 2 * j - problem.rows.pad;
    const float* p = source + row * width + (pair ? 0 : strip * 2 * L - problem.cols.pad);
    const int64_t apart = other - source;
    V acc[R];
    DWCONV_UNROLL
    for (int r = 0; r < R; ++r) acc[r] = bias;
    DWCONV_UNROLL
    for (int i = 0; i < 2 * R - 2 + K; ++i, p += width) {
      opaque(p);
      if (uint64_t(row + i) >= uint64_t(height)) continue;
      V a = Base::masked(lanes.low, p), b = Base::masked(pair ? lanes.low : lanes.high, pair ? p + apart : p + L);
      opaque(a), opaque(b);
      if (!pair) __builtin_prefetch(p + Base::kAhead), __builtin_prefetch(p + Base::kAhead + L);
      V tap[K];
      tap[0] = (V)_mm512_permutex2var_ps((__m512)a, (__m512i)index[0], (__m512)b);
      tap[1] = (V)_mm512_permutex2var_ps((__m512)a, (__m512i)index[1], (__m512)b);
      V past;
      if (!pair) past = Base::masked(lanes.past, p + 2 * L);
      DWCONV_UNROLL
      for (int u = 2; u < K; ++u) {
        const V from = pair ? a : tap[u % 2], with = pair ? b : past;
        tap[u] = (V)_mm512_permutex2var_ps((__m512)from, (__m512i)index[u], (__m512)with);
      }
      DWCONV_UNROLL
      for (int r = 0; r < R; ++r) {
        const int k = i - 2 * r;
        if (k < 0 || k >= K) continue;
        DWCONV_UNROLL
        for (int u = 0; u < K; ++u) acc[r] += tap[u] * weight[k][u];
      }
    }
    activate<float>(acc, problem.activation);
    const int64_t results = problem.cols.results;
    float* to = result + j * results + strip * L;
    const int64_t results_apart = other_result - result - L / 2;
    DWCONV_UNROLL
    for (int r = 0; r < R; ++r, to += results) {
      opaque(to);
      _mm512_mask_storeu_ps(to, lanes.first, (__m512)acc[r]);
      if (pair) _mm512_mask_storeu_ps(to + results_apart, lanes.second, (__m512)acc[r]);
      if (!pair && this->large) __builtin_prefetch(to + Base::kAhead, 1);
    }
  }
};

// Results 2j and 2j + 1 along an axis read source j + (pad - P) / 2 + d through kernel element parity + P - 2 d, where P is pad % 2.
template <int K, bool pair, int P>
struct Stride2GradInput : Stride2<K> {
  using Base = Stride2<K>;
  using V = typename Base::V;
  using Base::L, Base::problem, Base::width, Base::height, Base::weight;
  using Strip = typename Base::Strip;
  using Base::Base;
  static constexpr int D = (K + 1) / 2, kFirst = P - (K - 1) / 2;  // shifts d, from the first on

  static int64_t lattice_rows(const Gather<float>& problem) { return ceil_div(problem.rows.results, 2); }
  static int64_t strips(const Gather<float>& problem) { return ceil_div(problem.cols.results, 2 * L); }

  Strip strip(int64_t at) const {
    Strip lanes = {};
    const int64_t base = at * L + (problem.cols.pad - P) / 2 + kFirst, count = problem.cols.results - at * 2 * L;
    for (int d = 0; d < D; ++d) {
      const Range valid = inside(base + d, 1, width);
      lanes.shift[d] = Base::mask(valid.lo, std::min<int64_t>(valid.hi, ceil_div(count, 2)));
      lanes.other[d] = pair ? __mmask16(lanes.shift[d] << L / 2) : __mmask16(0);
    }
    for (int u = 0; u < K; ++u) {
      const int d = ((u % 2 != P) + P - u) / 2 - kFirst;
      lanes.taps[u] = lanes.shift[d] | lanes.other[d];
    }
    lanes.first = Base::mask(0, count);
    lanes.second = pair ? lanes.first : Base::mask(0, count - L);
    return lanes;
  }

  // R pairs of rows of results, from pair j on.
  template <int R>
  DWCONV_INLINE_MEMBER void tile(const Strip& lanes, const float* source, const float* other, float* result,
                                 float* other_result, V, int64_t strip, int64_t j) const {
    const int64_t row = j + (problem.rows.pad - P) / 2 + kFirst;
    const float* p = source + row * width + strip * L + (problem.cols.pad - P) / 2 + kFirst;
    const int64_t apart = other - source - L / 2, results = problem.cols.results;
    const int64_t results_apart = pair ? other_result - result : L;
    float* to = result + 2 * j * results + strip * 2 * L;
    V acc[R][2][2] = {};
    DWCONV_UNROLL
    for (int i = 0; i < R - 1 + D; ++i, p += width) {
      opaque(p);
      if (uint64_t(row + i) < uint64_t(height)) {
        V value[D];
        DWCONV_UNROLL
        for (int d = 0; d < D; ++d) {
          value[d] = Base::masked(lanes.shift[d], p + d);
          if (pair) value[d] = (V)_mm512_mask_loadu_ps((__m512)value[d], lanes.other[d], p + d + apart);
          opaque(value[d]);
        }
        if (!pair) __builtin_prefetch(p + Base::kAhead);
        DWCONV_UNROLL
        for (int r = 0; r < R; ++r) add_row(acc[r], value, i - r);
      }
      const int r = i - (D - 1);
      if (r < 0) continue;
      DWCONV_UNROLL
      for (int down = 0; down < 2; ++down, to += results) {
        opaque(to);
        if (down && 2 * (j + r) + 1 == problem.rows.results) continue;
        V low, high;
        interleave<float>(acc[r][down][0], acc[r][down][1], low, high, LaneIndices<float>{});
        _mm512_mask_storeu_ps(to, lanes.first, (__m512)low);
        _mm512_mask_storeu_ps(to + results_apart, lanes.second, (__m512)high);
        if (!pair && this->large) {
          __builtin_prefetch(to + Base::kAhead, 1), __builtin_prefetch(to + Base::kAhead + L, 1);
        }
      }
    }
  }

  // A row of sources to the pair of rows that it is at shift `down` of, counted from the first.
  DWCONV_INLINE_MEMBER void add_row(V (&acc)[2][2], const V (&value)[D], int down) const {
    if (down < 0 || down >= D) return;
    DWCONV_UNROLL
    for (int parity = 0; parity < 4; ++parity) {
      DWCONV_UNROLL
      for (int d = 0; d < D; ++d) {
        const int k = parity / 2 + P - 2 * (down + kFirst), u = parity % 2 + P - 2 * (d + kFirst);
        if (k >= 0 && k < K && u >= 0 && u < K) acc[parity / 2][parity % 2] += value[d] * weight[k][u];
      }
    }
  }
};
