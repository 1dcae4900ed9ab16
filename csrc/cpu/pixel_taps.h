// The inner loops of grad_weight where a vector runs over channels: pixels of grad_output and of the input meet in the
// taps that join them. Geometry comes as pitches, so that one loop serves NHWC tensors and packed pixels, any dilation
// and the lattices of lattice.h.

// A piece of grad_output and the input around it, for one vector of channels. Result (i, j) meets position
// (row_reuse*i + k, col_reuse*j + t) in tap (k, t); positions outside their range lie outside the tensor.
template <class T>
struct Pixels {
  const T* grad;   // result (0, 0)
  const T* input;  // position (0, 0)
  int64_t grad_row, grad_col, input_row, input_col;
  int64_t rows, cols;  // results
  int64_t row_reuse, col_reuse;
  Range row_range, col_range;

  Pixels band(int64_t first, int64_t last) const {
    Pixels part = *this;
    part.grad += grad_row * first;
    part.input += input_row * row_reuse * first;
    part.rows = last - first;
    part.row_range = {row_range.lo - row_reuse * first, row_range.hi - row_reuse * first};
    return part;
  }
};

DWCONV_INLINE bool within(int64_t i, Range range) { return i >= range.lo && i < range.hi; }

// A bit for each of `count` positions from `first` on that lies in the range.
template <int count>
DWCONV_INLINE uint32_t bits_within(int64_t first, Range range) {
  static_assert(count < 32);
  const int64_t lo = std::clamp<int64_t>(range.lo - first, 0, count);
  const int64_t hi = std::clamp<int64_t>(range.hi - first, 0, count);
  return ((1u << hi) - 1) & ~((1u << lo) - 1);
}

// The next pixel. Opaque, or GCC keeps a register for every multiple of the pitch, and spills them all.
template <class T>
DWCONV_INLINE void advance(const T*& p, int64_t pitch) {
  p += pitch;
  opaque(p);
}

// ---- 3x3: all taps in registers -------------------------------------------------------------------------------------

// TR x TC results into nine accumulators.
template <int S, int TR, int TC, class T>
DWCONV_INLINE void tile_3x3(Vec<Acc<T>>* acc, const T* grad, int64_t grad_row, int64_t grad_col, const T* input,
                            int64_t input_row, int64_t input_col, uint32_t rows, uint32_t cols, Mask<Acc<T>> mask) {
  using A = Acc<T>;
  Vec<A> sums[9], grads[TR][TC];
  DWCONV_UNROLL
  for (int t = 0; t < 9; ++t) sums[t] = acc[t];
  DWCONV_UNROLL
  for (int i = 0; i < TR; ++i) {
    const T* at = grad + i * grad_row;
    DWCONV_UNROLL
    for (int j = 0; j < TC; ++j, advance(at, grad_col)) grads[i][j] = load(at, mask);
  }
  DWCONV_UNROLL
  for (int y = 0; y < S * (TR - 1) + 3; ++y, advance(input, input_row)) {
    if (!(rows >> y & 1)) continue;
    const T* at = input;
    DWCONV_UNROLL
    for (int x = 0; x < S * (TC - 1) + 3; ++x, advance(at, input_col)) {
      if (!(cols >> x & 1)) continue;
      const Vec<A> value = load(at, mask);
      DWCONV_UNROLL
      for (int k = 0; k < 3; ++k) {
        DWCONV_UNROLL
        for (int t = 0; t < 3; ++t) {
          const int i = reached<TR, S>(y, k), j = reached<TC, S>(x, t);
          if (i >= 0 && j >= 0) sums[3 * k + t] += grads[i][j] * value;
        }
      }
    }
  }
  DWCONV_UNROLL
  for (int t = 0; t < 9; ++t) acc[t] = sums[t];
}

// The results of TR rows from row i on.
template <int S, int TR, class A>
DWCONV_INLINE void row_3x3(const Pixels<A>& pixels, Vec<A>* acc, int64_t i) {
  const uint32_t rows = bits_within<S*(TR - 1) + 3>(S * i, pixels.row_range);
  const A* grad = pixels.grad + i * pixels.grad_row;
  const A* input = pixels.input + S * i * pixels.input_row;
  const Mask<A> all(0, kLanes<A>);
  int64_t j = 0;
  for (; j + kTile <= pixels.cols; j += kTile) {
    tile_3x3<S, TR, kTile>(acc, grad + j * pixels.grad_col, pixels.grad_row, pixels.grad_col,
                           input + S * j * pixels.input_col, pixels.input_row, pixels.input_col, rows,
                           bits_within<S*(kTile - 1) + 3>(S * j, pixels.col_range), all);
  }
  for (; j + 3 <= pixels.cols; j += 3) {
    tile_3x3<S, TR, 3>(acc, grad + j * pixels.grad_col, pixels.grad_row, pixels.grad_col,
                       input + S * j * pixels.input_col, pixels.input_row, pixels.input_col, rows,
                       bits_within<S * 2 + 3>(S * j, pixels.col_range), all);
  }
  for (; j < pixels.cols; ++j) {
    tile_3x3<S, TR, 1>(acc, grad + j * pixels.grad_col, pixels.grad_row, pixels.grad_col,
                       input + S * j * pixels.input_col, pixels.input_row, pixels.input_col, rows,
                       bits_within<3>(S * j, pixels.col_range), all);
  }
}

template <int S, class A>
void taps_3x3(const Pixels<A>& pixels, Vec<A>* acc) {
  int64_t i = 0;
  for (; i + 2 <= pixels.rows; i += 2) row_3x3<S, 2>(pixels, acc, i);
  if (i < pixels.rows) row_3x3<S, 1>(pixels, acc, i);
}

// ---- any kernel: two kernel rows at a time --------------------------------------------------------------------------

// An input row meets result row i in kernel row k and result row i + 1 in kernel row k - row_reuse. So two results rows
// and two kernel rows go together: 2*NT accumulators stay in registers while k is fixed.
template <class T, int S, int NT>
struct TapRows {
  using A = Acc<T>;
  const Pixels<T>& pixels;
  Vec<A>* acc;  // of tap (0, t)
  int64_t acc_row, t;
  int64_t tap_rows;

  // Results [j, j + R) of G rows.
  template <int G, int R>
  DWCONV_INLINE_MEMBER void tile(Vec<A> (&sums)[2][NT], const T* grad, const T* input, int64_t j) const {
    constexpr int kStep = S == 0 ? 1 : S;
    const int64_t first = (S == 0 ? pixels.col_reuse : S) * j + t;
    const uint32_t inside = bits_within<kPositions<R, NT, kStep>>(first, pixels.col_range);
    Vec<A> grads[G][R];
    DWCONV_UNROLL
    for (int g = 0; g < G; ++g) {
      const T* at = grad + g * pixels.grad_row + j * pixels.grad_col;
      DWCONV_UNROLL
      for (int r = 0; r < R; ++r, advance(at, pixels.grad_col)) grads[g][r] = load(at);
    }
    const T* at = input + first * pixels.input_col;
    DWCONV_UNROLL
    for (int x = 0; x < kPositions<R, NT, kStep>; ++x, advance(at, pixels.input_col)) {
      if (!(inside >> x & 1)) continue;
      const Vec<A> value = load(at);
      DWCONV_UNROLL
      for (int tap = 0; tap < NT; ++tap) {
        const int r = reached<R, kStep>(x, tap);
        if (r < 0) continue;
        if constexpr (G == 2) {
          sums[0][tap] += grads[0][r] * value;
          sums[1][tap] += grads[1][r] * value;
        } else {
          sums[r & 1][tap] += grads[0][r] * value;  // two chains, to hide the latency
        }
      }
    }
  }

  // `count` groups of G result rows, two rows apart, from row i on, against kernel row k of row i.
  template <int G>
  void walk(int64_t i, int64_t count, int64_t k, int64_t to0, int64_t to1) const {
    Vec<A> sums[2][NT];
    DWCONV_UNROLL
    for (int tap = 0; tap < NT; ++tap) sums[0][tap] = sums[1][tap] = Vec<A>{};
    for (; count > 0; --count, i += 2) {
      const int64_t row = pixels.row_reuse * i + k;
      if (!within(row, pixels.row_range)) continue;
      const T* grad = pixels.grad + i * pixels.grad_row;
      const T* input = pixels.input + row * pixels.input_row;
      int64_t j = 0;
      if constexpr (S != 0) {
        for (; j + kTile <= pixels.cols; j += kTile) tile<G, kTile>(sums, grad, input, j);
        for (; j + 3 <= pixels.cols; j += 3) tile<G, 3>(sums, grad, input, j);
      }
      for (; j < pixels.cols; ++j) tile<G, 1>(sums, grad, input, j);
    }
    DWCONV_UNROLL
    for (int tap = 0; tap < NT; ++tap) acc[to0 * acc_row + tap] += sums[0][tap];
    DWCONV_UNROLL
    for (int tap = 0; tap < NT; ++tap) acc[to1 * acc_row + tap] += sums[1][tap];
  }

  void all() const {
    const int64_t pairs = pixels.rows / 2, last = tap_rows + pixels.row_reuse;
    for (int64_t k = 0; k < last && pairs > 0; ++k) {
      const bool upper = k < tap_rows, lower = k >= pixels.row_reuse;
      if (upper && lower) {
        walk<2>(0, pairs, k, k, k - pixels.row_reuse);
      } else if (upper) {
        walk<1>(0, pairs, k, k, k);
      } else if (lower) {
        walk<1>(1, pairs, k - pixels.row_reuse, k - pixels.row_reuse, k - pixels.row_reuse);
      }
    }
    if (pixels.rows % 2 == 0) return;
    for (int64_t k = 0; k < tap_rows; ++k) walk<1>(pixels.rows - 1, 1, k, k, k);
  }
};
