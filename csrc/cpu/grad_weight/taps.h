// The inner loops of grad_weight where a vector runs over channels: pixels of grad_output and of the input meet in the
// taps that join them. Geometry comes as pitches, so that one loop serves NHWC tensors and packed pixels, any dilation
// and the lattices of lattice.h.
#if defined(DWCONV_CPU_GRAD_WEIGHT_TAPS_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_GRAD_WEIGHT_TAPS_H
#undef DWCONV_CPU_GRAD_WEIGHT_TAPS_H
#else
#define DWCONV_CPU_GRAD_WEIGHT_TAPS_H
#endif

#include "../axis/tile.h"
#include "sums.h"

DWCONV_BEGIN_TARGET

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
  // What lies so much further on is fetched, if not 0 (3x3 only).
  int64_t grad_ahead = 0, input_ahead = 0;

  Pixels band(int64_t first, int64_t last) const {
    Pixels part = *this;
    part.grad += grad_row * first;
    part.input += input_row * row_reuse * first;
    part.rows = last - first;
    part.row_range = {row_range.lo - row_reuse * first, row_range.hi - row_reuse * first};
    return part;
  }

  Pixels columns(int64_t first, int64_t last) const {
    Pixels part = *this;
    part.grad += grad_col * first;
    part.input += input_col * col_reuse * first;
    part.cols = last - first;
    part.col_range = {col_range.lo - col_reuse * first, col_range.hi - col_reuse * first};
    return part;
  }

  // Rows for columns.
  Pixels turned() const {
    Pixels other = *this;
    std::swap(other.grad_row, other.grad_col);
    std::swap(other.input_row, other.input_col);
    std::swap(other.rows, other.cols);
    std::swap(other.row_reuse, other.col_reuse);
    std::swap(other.row_range, other.col_range);
    return other;
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

// ---- 3x3: all taps in registers -------------------------------------------------------------------------------------

// TR result rows from row i on, against the input rows that they meet.
template <int S, int TR, class T>
struct Rows3x3 {
  using A = Acc<T>;
  static constexpr int kHeight = S * (TR - 1) + 3;

  const Pixels<T>& pixels;
  const T* grad;
  const T* input;
  uint32_t rows;
  Mask<A> mask;

  Rows3x3(const Pixels<T>& p, int64_t i, Mask<A> lanes)
      : pixels(p),
        grad(p.grad + i * p.grad_row),
        input(p.input + S * i * p.input_row),
        rows(bits_within<kHeight>(S * i, p.row_range)),
        mask(lanes) {}

  DWCONV_INLINE_MEMBER void add_to(Vec<A> (&sums)[9]) const {
    int64_t j = 0;
    for (; j + kTile <= pixels.cols; j += kTile) tile<kTile>(j, sums);
    for (; j + 3 <= pixels.cols; j += 3) tile<3>(j, sums);
    for (; j < pixels.cols; ++j) tile<1>(j, sums);
  }

 private:
  // TC results of each row: held in registers, while each position goes by once.
  template <int TC>
  DWCONV_INLINE_MEMBER void tile(int64_t j, Vec<A> (&sums)[9]) const {
    constexpr int kWidth = S * (TC - 1) + 3;
    const uint32_t cols = bits_within<kWidth>(S * j, pixels.col_range);
    Vec<A> grads[TR][TC];
    const T* row = grad + j * pixels.grad_col;
    DWCONV_UNROLL
    for (int i = 0; i < TR; ++i, row += pixels.grad_row) {
      const T* at = row;
      DWCONV_UNROLL
      for (int x = 0; x < TC; ++x, advance(at, pixels.grad_col)) grads[i][x] = load(at, mask);
      if (pixels.grad_ahead != 0) fetch<TC>(row + pixels.grad_ahead, pixels.grad_col);
    }
    row = input + S * j * pixels.input_col;
    DWCONV_UNROLL
    for (int y = 0; y < kHeight; ++y, advance(row, pixels.input_row)) {
      // The rows above have been read by the result rows before these.
      if (y >= kHeight - S * TR && pixels.input_ahead != 0) fetch<S * TC>(row + pixels.input_ahead, pixels.input_col);
      if (!(rows >> y & 1)) continue;
      const T* at = row;
      DWCONV_UNROLL
      for (int x = 0; x < kWidth; ++x, advance(at, pixels.input_col)) {
        if (!(cols >> x & 1)) continue;
        Vec<A> value = load(at, mask);
        opaque(value);
        DWCONV_UNROLL
        for (int k = 0; k < 3; ++k) {
          DWCONV_UNROLL
          for (int t = 0; t < 3; ++t) {
            const int r = reached<TR, S>(y, k), c = reached<TC, S>(x, t);
            if (r >= 0 && c >= 0) sums[3 * k + t] += grads[r][c] * value;
          }
        }
      }
    }
  }

  template <int count>
  static DWCONV_INLINE_MEMBER void fetch(const T* at, int64_t pitch) {
    DWCONV_UNROLL
    for (int x = 0; x < count; ++x, advance(at, pitch)) __builtin_prefetch(at);
  }
};

// The columns that an accumulator may add up, in whole tiles.
template <class A>
constexpr int64_t kLongest = kChain<A> / kTile * kTile;

// Adds the products of all taps to acc[9]. They stay in registers meanwhile, but for so many that sums would lose digits.
template <int S, class T>
void taps_3x3(const Pixels<T>& pixels, Mask<Acc<T>> mask, Total<Acc<T>>* acc) {
  using A = Acc<T>;
  for (int64_t j = 0; j < pixels.cols; j += kLongest<A>) {
    const Pixels<T> part = pixels.columns(j, std::min(pixels.cols, j + kLongest<A>));
    const int64_t most = std::max<int64_t>(2, kChain<A> / part.cols / 2 * 2);
    for (int64_t i = 0, end; i < part.rows; i = end) {
      end = std::min(part.rows, i + most);
      Vec<A> sums[9] = {};
      for (; i + 2 <= end; i += 2) Rows3x3<S, 2, T>(part, i, mask).add_to(sums);
      if (i < end) Rows3x3<S, 1, T>(part, i, mask).add_to(sums);
      DWCONV_UNROLL
      for (int t = 0; t < 9; ++t) acc[t] += sums[t];
    }
  }
}

// ---- 3x3 with dilation: taps that share nothing ---------------------------------------------------------------------

// Rectangles of results that meet the same taps, a load for each product: nothing outside is looked at, and however large
// the dilation, neighbours lie next to each other in memory.
template <class A>
struct Dilated3x3 {
  const A* grad;   // result (0, 0)
  const A* input;  // its position in tap (0, 0), perhaps outside
  int64_t grad_row, grad_col, input_row, input_col;
  int64_t tap_row, tap_col;            // from tap to tap in the input
  Range row_inside[3], col_inside[3];  // results that meet a position inside, in tap rows and columns
  int64_t rows, cols;

  void add_to(Total<A>* acc) const {
    for (int64_t i = 0, end; i < rows; i = end) {
      const Range k = met(row_inside, i, rows, end);
      end = std::min(end, i + std::clamp<int64_t>(kChain<A> / std::max<int64_t>(1, cols), 1, 4));  // 4 for L1: measured
      if (k.hi > k.lo) columns({i, end}, k, acc);
    }
  }

 private:
  // The taps that result i meets, and where the next result is that meets others.
  static Range met(const Range (&inside)[3], int64_t i, int64_t count, int64_t& end) {
    Range taps{3, 0};
    end = count;
    for (int t = 0; t < 3; ++t) {
      const bool in = within(i, inside[t]);
      if (in) taps = {std::min<int64_t>(taps.lo, t), t + 1};
      if (in || i < inside[t].lo) end = std::min(end, in ? inside[t].hi : inside[t].lo);
    }
    return taps;
  }

  void columns(Range i, Range k, Total<A>* acc) const {
    for (int64_t j = 0, end; j < cols; j = end) {
      const Range t = met(col_inside, j, cols, end);
      if (k.hi - k.lo == 1) widths<1>(i, {j, end}, k, t, acc);
      if (k.hi - k.lo == 2) widths<2>(i, {j, end}, k, t, acc);
      if (k.hi - k.lo == 3) widths<3>(i, {j, end}, k, t, acc);
    }
  }

  template <int NK>
  void widths(Range i, Range j, Range k, Range t, Total<A>* acc) const {
    acc += 3 * k.lo + t.lo;
    const A* from = input + k.lo * tap_row + t.lo * tap_col;
    if (t.hi - t.lo == 1) rectangle<NK, 1>(i, j, from, acc);
    if (t.hi - t.lo == 2) rectangle<NK, 2>(i, j, from, acc);
    if (t.hi - t.lo == 3) rectangle<NK, 3>(i, j, from, acc);
  }

  template <int NK, int NT>
  void rectangle(Range rows, Range cols, const A* from, Total<A>* acc) const {
    Vec<A> sums[NK][NT] = {};
    for (int64_t i = rows.lo; i < rows.hi; ++i) {
      const A* grads = grad + i * grad_row + cols.lo * grad_col;
      const A* inputs = from + i * input_row + cols.lo * input_col;
      for (int64_t j = cols.lo; j < cols.hi; ++j, grads += grad_col, inputs += input_col) {
        const Vec<A> result = load(grads);
        const A* at = inputs;
        DWCONV_UNROLL
        for (int k = 0; k < NK; ++k, advance(at, tap_row)) {
          DWCONV_UNROLL
          for (int t = 0; t < NT; ++t) sums[k][t] += result * load(at + t * tap_col);
        }
      }
    }
    DWCONV_UNROLL
    for (int k = 0; k < NK; ++k) {
      DWCONV_UNROLL
      for (int t = 0; t < NT; ++t) acc[3 * k + t] += sums[k][t];
    }
  }
};

// ---- any kernel: two kernel rows at a time --------------------------------------------------------------------------

// An input row meets result row i in kernel row k and result row i + 1 in kernel row k - row_reuse. So two results rows
// and two kernel rows go together: 2*NT accumulators stay in registers while k is fixed.
template <class T, int S, int NT>
struct TapRows {
  using A = Acc<T>;
  const Pixels<T>& pixels;
  Total<A>* acc;  // of tap (0, t)
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

DWCONV_END_TARGET

#endif  // DWCONV_CPU_GRAD_WEIGHT_TAPS_H
