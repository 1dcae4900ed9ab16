// grad_weight and the bias gradient, contiguous layout (NCHW), 3x3 at stride 1 or 2 without dilation.
//
// Method: a vector runs along a row of grad_output; tiles of R rows and one vector go along the rows, in the order of
// memory, each input row loaded once for each kernel column and used for every row of the tile that it meets. All nine
// accumulators stay in registers for a plane. Sums over lanes are made for all taps together, by shuffles that halve the
// vectors with each step. Work is split by filter and, when there are few, by groups of images.
// Bound: bytes; loads that straddle cache lines where the tensors sit in L2.
#if defined(DWCONV_CPU_GRAD_WEIGHT_ROWS3X3_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_GRAD_WEIGHT_ROWS3X3_H
#undef DWCONV_CPU_GRAD_WEIGHT_ROWS3X3_H
#else
#define DWCONV_CPU_GRAD_WEIGHT_ROWS3X3_H
#endif

#include "../axis/bands.h"
#include "../kernel_list.h"
#include "rows.h"
#include "taps.h"

DWCONV_BEGIN_TARGET

template <class T>
class GradWeightRows3x3 {
 public:
  using A = Acc<T>;
  static constexpr int L = kLanes<A>;

  GradWeightRows3x3(Operation, const Shape& s)
      : s_(s),
        chunks_(bands(s.N, 1, s.out_channels())),
        far_(operand_bytes(s, sizeof(T)) > caches::kRowsInL2),
        first_(s, 0),
        last_(s, (s.OW - 1) / L * L) {}

  static const char* supports(Operation, const Shape& s) {
    if (s.KH != 3 || s.KW != 3) return "the kernel is not 3x3";
    if (s.stride_h != s.stride_w || s.stride_h > 2) return "the stride is neither 1 nor 2";
    if (s.dilation_h != 1 || s.dilation_w != 1) return "the dilation is not 1";
    return nullptr;
  }

  int64_t workspace_bytes() const { return chunks_ > 1 ? items() * kSums * int64_t(sizeof(double)) : 0; }

  // Stage 1, an item the images of one chunk for one filter.
  int64_t items() const { return s_.out_channels() * chunks_; }

  void run(const Buffers& buffers, int64_t begin, int64_t end) const {
    const Shape& s = s_;
    for (int64_t item = begin; item < end; ++item) {
      const int64_t channel = item / chunks_, chunk = item % chunks_;
      double sums[9] = {}, bias = 0;
      for (int64_t n = s.N * chunk / chunks_; n < s.N * (chunk + 1) / chunks_; ++n) {
        const T* input = static_cast<const T*>(buffers.input) + (n * s.C + channel / s.M) * s.H * s.W;
        const T* grad = static_cast<const T*>(buffers.grad_output) + (n * s.out_channels() + channel) * s.OH * s.OW;
        if (s.stride_w == 1) {
          Rows<1>{s, first_, last_, input, grad, far_}.plane(sums);
        } else {
          Rows<2>{s, first_, last_, input, grad, far_}.plane(sums);
        }
        if (buffers.grad_bias) bias += plane_sum(grad, s.OH * s.OW);
      }
      if (chunks_ == 1) {
        store_filter(buffers, channel, sums, bias);
      } else {
        double* to = static_cast<double*>(buffers.workspace) + item * kSums;
        std::copy_n(sums, 9, to);
        to[9] = bias;
      }
    }
  }

  // Stage 2, an item a filter, where there are chunks to be added, in order.
  int64_t filters() const { return chunks_ > 1 ? s_.out_channels() : 0; }

  void finish(const Buffers& buffers, int64_t begin, int64_t end) const {
    const double* workspace = static_cast<const double*>(buffers.workspace);
    for (int64_t channel = begin; channel < end; ++channel) {
      double totals[kSums] = {};
      for (int64_t chunk = 0; chunk < chunks_; ++chunk) {
        for (int i = 0; i < kSums; ++i) totals[i] += workspace[(channel * chunks_ + chunk) * kSums + i];
      }
      store_filter(buffers, channel, totals, totals[9]);
    }
  }

  static constexpr Stage<GradWeightRows3x3> stages[] = {{&GradWeightRows3x3::items, &GradWeightRows3x3::run},
                                                        {&GradWeightRows3x3::filters, &GradWeightRows3x3::finish}};

 private:
  static constexpr int kSums = 10;  // of a filter, the bias last

  // What kernel column t means for a strip: which lanes are inside. At stride 2, which of the 2*L positions from the first.
  struct Strip {
    int64_t col;
    Mask<A> grad, taps[3], low, high;

    Strip() = default;
    Strip(const Shape& s, int64_t first)
        : col(first), grad(lanes<A>(0, s.OW - first)), taps{tap(s, first, 0), tap(s, first, 1), tap(s, first, 2)} {
      const Range range = inside(first * s.stride_w - s.pad_left, 1, s.W);
      low = lanes<A>(range.lo, range.hi), high = lanes<A>(range.lo - L, range.hi - L);
    }
    static Mask<A> tap(const Shape& s, int64_t first, int64_t t) {
      const Range range = inside(first * s.stride_w + t - s.pad_left, s.stride_w, s.W);
      return lanes<A>(range.lo, std::min(range.hi, s.OW - first));
    }
  };

  static void store_filter(const Buffers& buffers, int64_t channel, const double* sums, double bias) {
    for (int t = 0; t < 9; ++t) from_acc(A(sums[t]), static_cast<T*>(buffers.result) + channel * 9 + t);
    if (buffers.grad_bias) from_acc(A(bias), static_cast<T*>(buffers.grad_bias) + channel);
  }

  template <int S>
  struct Rows {
    const Shape& s;
    const Strip& first;  // of a row
    const Strip& last;
    const T* input;
    const T* grad;
    bool far;

    // The sums of all nine taps. Accumulators add up about kChain products: whole rows, unless those are longer.
    void plane(double (&sums)[9]) const {
      const int64_t most = std::max<int64_t>(1, kChain<A> / std::max<int64_t>(1, ceil_div(s.OW, L)));
      for (int64_t row = 0; row < s.OH; row += most) {
        Vec<A> acc[9];
        all(row, std::min(s.OH, row + most), acc);
        add_sums<A>(sums, acc);
      }
    }

    // Not inline: what follows it would take registers from it.
    __attribute__((noinline)) void all(int64_t o, int64_t end, Vec<A> (&acc)[9]) const {
      Vec<A> sums[9] = {};
      for (; o + kTile <= end; o += kTile) strips<kTile>(o, sums);
      for (; o + 3 <= end; o += 3) strips<3>(o, sums);
      for (; o < end; ++o) strips<1>(o, sums);
      DWCONV_UNROLL
      for (int t = 0; t < 9; ++t) acc[t] = sums[t];
    }

    // R rows from the left to the right.
    template <int R>
    DWCONV_INLINE_MEMBER void strips(int64_t o, Vec<A> (&sums)[9]) const {
      // Strips with all their lanes and positions inside.
      const int64_t begin = ceil_div(s.pad_left, S * L) * L;
      const int64_t end = std::min(s.OW, (s.W - 3 + s.pad_left) / S + 1) / L * L;
      for (int64_t col = 0; col < s.OW; col += L) {
        if (col >= begin && col < end) {
          tile<R, false>(o, col, first, sums);
        } else {
          const Strip* strip = col == 0 ? &first : &last;
          Strip other;
          if (col != strip->col) other = Strip(s, col), strip = &other;
          tile<R, true>(o, col, *strip, sums);
        }
      }
    }

    template <int R, bool masked>
    DWCONV_INLINE_MEMBER void tile(int64_t o, int64_t col, const Strip& strip, Vec<A> (&sums)[9]) const {
      const int64_t y = S * o - s.pad_top;
      const uint32_t rows = bits_within<S*(R - 1) + 3>(y, {0, s.H});
      const T* at = grad + o * s.OW + col;
      if (far) prefetch<R>(at, input + y * s.W + S * col);
      Vec<A> grads[R];
      DWCONV_UNROLL
      for (int r = 0; r < R; ++r, advance(at, s.OW)) grads[r] = masked ? load(at, strip.grad) : load(at);
      at = input + y * s.W + S * col - s.pad_left;
      DWCONV_UNROLL
      for (int i = 0; i < S * (R - 1) + 3; ++i, advance(at, s.W)) {
        if (!(rows >> i & 1)) continue;
        Vec<A> values[3];
        if constexpr (S == 2) pairs<masked>(at, strip, values);
        DWCONV_UNROLL
        for (int t = 0; t < 3; ++t) {
          if constexpr (S == 1) values[t] = masked ? load(at + t, strip.taps[t]) : load(at + t);
          opaque(values[t]);  // or it is loaded three times, across cache lines
          DWCONV_UNROLL
          for (int k = 0; k < 3; ++k) {
            const int r = reached<R, S>(i, k);
            if (r < 0) continue;
            Vec<A>& sum = sums[3 * k + t];
            sum = masked ? add_product<A>(sum, grads[r], values[t], strip.taps[t]) : sum + grads[r] * values[t];
          }
        }
      }
    }

    // The rows after these, in this plane or the next.
    template <int R>
    DWCONV_INLINE_MEMBER void prefetch(const T* grad_row, const T* input_row) const {
      grad_row += R * s.OW;
      input_row += (S * R + 2) * s.W;
      for (int r = 0; r < R; ++r, grad_row += s.OW) __builtin_prefetch(grad_row);
      for (int r = 0; r < S * R; ++r, input_row += s.W) {
        for (int line = 0; line < S; ++line) __builtin_prefetch(input_row + line * L);
      }
    }

    // What the three kernel columns meet in a row at stride 2.
    template <bool masked>
    DWCONV_INLINE_MEMBER void pairs(const T* at, const Strip& strip, Vec<A> (&values)[3]) const {
#if DWCONV_VEC_BYTES == 64
      if constexpr (sizeof(T) == 2) {
        const uint32_t bits = strip.low.bits | strip.high.bits << 16;
        const Bits32 both = masked ? (Bits32)_mm512_maskz_loadu_epi16(bits, at) : load_bytes<Bits32>(at);
        values[0] = widen(__builtin_convertvector(both, Half16), T{});
        values[1] = widen(__builtin_convertvector(both >> 16, Half16), T{});
      } else {
        const Vec<A> low = masked ? load(at, strip.low) : load(at);
        const Vec<A> high = masked ? load(at + L, strip.high) : load(at + L);
        values[0] = pick_even<A>(low, high, LaneIndices<A>{});
        values[1] = pick_odd<A>(low, high, LaneIndices<A>{});
      }
      const bool inside = !masked || (strip.taps[2].hi() == L && !strip.taps[2].empty());
      const A next = inside ? to_acc(at[2 * L]) : A(0);
      values[2] = shifted(values[0], next, LaneIndices<A>{});
#else
      DWCONV_UNROLL
      for (int t = 0; t < 3; ++t) {
        values[t] = masked ? load_even(at + t, strip.taps[t]) : load_even(at + t, LaneIndices<A>{});
      }
#endif
    }

    // Lane i from lane i + 1, the last from `next`.
    template <int... i>
    static DWCONV_INLINE_MEMBER Vec<A> shifted(Vec<A> value, A next, std::integer_sequence<int, i...>) {
      return DWCONV_SHUFFLE(A, value, broadcast<A>(next), i + 1);
    }
  };

  Shape s_;
  int64_t chunks_;  // of images
  bool far_;
  Strip first_, last_;  // of a row
};

DWCONV_END_TARGET

#endif  // DWCONV_CPU_GRAD_WEIGHT_ROWS3X3_H
