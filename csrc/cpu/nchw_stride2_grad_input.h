// grad_input, contiguous layout (NCHW), 3x3 and 5x5 at a stride of 2: the tiles of nchw_stride2.h, float32 with AVX-512.
//
// Method: the four parities of a pair of rows of results are added up side by side, from one load a shift of a source
// row, and their columns interleaved at the store; seven pairs of rows to a tile. Rows of at most half a vector go in
// pairs of planes, one in each half. Weights are zero in the lanes whose tap is padding, where the values are zero, too.
// Bound: bytes for 3x3; loads for 5x5.

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
    __mmask16 shift[K / 2 + 1], other[K / 2 + 1];  // of a row of sources, at each shift
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
