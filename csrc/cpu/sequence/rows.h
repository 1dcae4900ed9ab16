// sequence, and forward and grad_input of rows, in NCHW: a 1-D convolution with a stride of 1 along rows.
//
// Method: a vector runs along the row, and each tap is one load of the row, moved by the tap's offset. Vectors that reach
// past an end of the row, or past the beginning of its own sequence, take the lanes that there are from the row and from
// the states before it. Up to eight taps are unrolled and held in registers.
// Bound: bytes up to about eight taps, FMA from there on; with an activation, its arithmetic.
#if defined(DWCONV_CPU_SEQUENCE_ROWS_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_SEQUENCE_ROWS_H
#undef DWCONV_CPU_SEQUENCE_ROWS_H
#else
#define DWCONV_CPU_SEQUENCE_ROWS_H
#endif

#include "line.h"

DWCONV_BEGIN_TARGET

template <class T>
class SequenceRows {
 public:
  using A = Acc<T>;
  static constexpr int L = kLanes<A>;

  SequenceRows(Operation operation, const Shape& shape)
      : line_(operation, shape), spans_(std::max<int64_t>(1, ceil_div(line_.results, kSpan))) {}

  static const char* supports(Operation operation, const Shape& shape) { return Line::refusal(operation, shape); }

  int64_t workspace_bytes() const { return 0; }

  // An item is a span of a row.
  int64_t items() const { return line_.images * line_.channels * spans_; }

  void run(const Buffers& buffers, int64_t begin, int64_t end) const {
    with_width<kUnrolled<T>>(line_.width, [&](auto width) {
      for (int64_t item = begin; item < end; ++item) {
        const int64_t row = item / spans_, first = item % spans_ * kSpan;
        span<decltype(width)::value>(buffers, row / line_.channels, row % line_.channels, first,
                                     std::min(line_.results, first + kSpan));
      }
    });
  }

  static constexpr Stage<SequenceRows> stages[] = {{&SequenceRows::items, &SequenceRows::run}};

 private:
  static constexpr int64_t kSpan = 8192;
  static constexpr int kTogether = 4;  // vectors, whose sums do not wait for each other
  static constexpr int kPairVectors = kTogether / 2;
  template <int K>
  static constexpr bool kPairs = std::is_same_v<T, bf16> && K >= 2;

  // Results [first, last) of a row.
  template <int K>
  void span(const Buffers& buffers, int64_t image, int64_t channel, int64_t first, int64_t last) const {
    const RowTaps<T> taps(line_, buffers, image, channel);
    const RowWeights<T, K> weights(line_, buffers, channel);
    const Vec<A> bias = broadcast<A>(bias_of<T>(buffers, channel));
    T* result = static_cast<T*>(buffers.result) + (image * line_.channels + channel) * line_.results;
    const bool streams = kStreams<T> && line_.is_large(sizeof(T)) && is_line(result);
    const int64_t inner_end = std::min(last, taps.inner_end());
    int64_t at = first;
    for (; at < last && at < line_.before; at += L) border<K>(taps, weights, bias, result, at, last, buffers);
    if constexpr (kPairs<K>) {
      if (line_.dilation == 1) {
        // One more than the taps is read.
        for (; at + 2 * kPairVectors * L < inner_end && taps.all_reach(at, 2 * kPairVectors);
             at += 2 * kPairVectors * L) {
          pairs<K>(taps, weights, bias, result + at, at, buffers.activation);
        }
      }
    }
    for (; at + kTogether * L <= inner_end; at += kTogether * L) {
      if (!taps.all_reach(at, kTogether)) {
        for (int r = 0; r < kTogether; ++r) border<K>(taps, weights, bias, result, at + r * L, last, buffers);
        continue;
      }
      inner<K, kTogether>(taps, weights, bias, result + at, at, streams, buffers.activation);
    }
    for (; at + L <= inner_end && taps.all_reach(at, 1); at += L) {
      inner<K, 1>(taps, weights, bias, result + at, at, streams, buffers.activation);
    }
    for (; at < last; at += L) border<K>(taps, weights, bias, result, at, last, buffers);
    if (streams) end_of_streams();
  }

  template <int K, int R>
  DWCONV_INLINE_MEMBER void inner(const RowTaps<T>& taps, const RowWeights<T, K>& weights, Vec<A> bias, T* result,
                                  int64_t at, bool streams, Activation activation) const {
    Vec<A> sums[R];
    DWCONV_UNROLL
    for (int r = 0; r < R; ++r) sums[r] = bias;
    const T* from = taps.row + at - line_.before;
    const auto add = [&](int k) {
      const Vec<A> weight = weights[k];
      DWCONV_UNROLL
      for (int r = 0; r < R; ++r) sums[r] += weight * load(from + r * L);
      from += line_.dilation;
    };
    if constexpr (K > 0) {
      DWCONV_UNROLL
      for (int k = 0; k < K; ++k) add(k);
    } else {
      for (int k = 0; k < line_.width; ++k) add(k);
    }
    apply<T, R>(sums, activation);
    DWCONV_UNROLL
    for (int r = 0; r < R; ++r) {
      if (kStreams<T> && streams) {
        stream(result + r * L, sums[r]);
      } else {
        store(result + r * L, sums[r]);
      }
    }
  }

  // The same in bf16 without a dilation: a lane holds two neighbours, and a shift or a mask makes either an f32. Results
  // of even and of odd places have their own sums.
  template <int K>
  DWCONV_INLINE_MEMBER void pairs(const RowTaps<T>& taps, const RowWeights<T, K>& weights, Vec<A> bias, T* result,
                                  int64_t at, Activation activation) const {
    Vec<A> sums[2 * kPairVectors];  // [even and odd of each]
    const T* from = taps.row + at - line_.before;
    DWCONV_UNROLL
    for (int r = 0; r < kPairVectors; ++r) {
      Vec<A> x[K + 2];  // the element that is so many behind the first tap of even results
      DWCONV_UNROLL
      for (int k = 0; k < K + 1; k += 2) {
        const Bits32 both = load_bytes<Bits32>(from + 2 * r * L + k);
        x[k] = (Vec<A>)(both << 16), x[k + 1] = (Vec<A>)(both & 0xffff0000u);
      }
      DWCONV_UNROLL
      for (int odd = 0; odd < 2; ++odd) {
        Vec<A> sum = bias;
        DWCONV_UNROLL
        for (int k = 0; k < K; ++k) sum += weights[k] * x[k + odd];
        sums[2 * r + odd] = sum;
      }
    }
    apply<T, 2 * kPairVectors>(sums, activation);
    DWCONV_UNROLL
    for (int r = 0; r < kPairVectors; ++r) {
      const Bits32 both = narrow_bits(sums[2 * r], bf16{}) | (narrow_bits(sums[2 * r + 1], bf16{}) << 16);
      __builtin_memcpy(result + 2 * r * L, &both, sizeof both);
    }
  }

  // The vector of results at `at`, of which those before `last` are stored.
  template <int K>
  __attribute__((noinline)) void border(const RowTaps<T>& taps, const RowWeights<T, K>& weights, Vec<A> bias, T* result,
                                        int64_t at, int64_t last, const Buffers& buffers) const {
    Vec<A> sums[1] = {bias};
    for (int k = 0; k < line_.width; ++k) {
      Mask<A> inside;
      const Vec<A> x = taps.at(at, k, inside);
      sums[0] = add_product<A>(sums[0], weights[k], x, inside);
    }
    apply<T, 1>(sums, buffers.activation);
    store(result + at, taps.keep_wanted(sums[0], at), lanes<A>(0, last - at));
  }

  Line line_;
  int64_t spans_;  // of a row
};

DWCONV_END_TARGET

#endif  // DWCONV_CPU_SEQUENCE_ROWS_H
