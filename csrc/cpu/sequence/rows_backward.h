// sequence_backward in NCHW: the gradients of the input, the states, the weight and the bias, in one pass over a row.
//
// Method: blocks of a row, from its end to its beginning. First the gradient before the activation, for which the sums of
// forward are computed again; it goes to a buffer in the cache, and its products with the taps are summed up. Then
// the gradient of the input is the sum of the buffer's values that lie up to the taps' reach behind each position: those
// of this block and, kept from the block before, the first of the next.
// Bound: bytes for a few taps, FMA (three for each tap) from there on; with an activation, its arithmetic.
#if defined(DWCONV_CPU_SEQUENCE_ROWS_BACKWARD_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_SEQUENCE_ROWS_BACKWARD_H
#undef DWCONV_CPU_SEQUENCE_ROWS_BACKWARD_H
#else
#define DWCONV_CPU_SEQUENCE_ROWS_BACKWARD_H
#endif

#include "sums.h"

DWCONV_BEGIN_TARGET

template <class T>
class SequenceRowsBackward {
 public:
  using A = Acc<T>;
  static constexpr int L = kLanes<A>;

  SequenceRowsBackward(Operation operation, const Shape& shape)
      : line_(operation, shape),
        spans_(std::max<int64_t>(1, ceil_div(line_.results, kSpan))),
        slots_(line_, line_.images * spans_) {}

  static const char* supports(Operation operation, const Shape& shape) {
    if (const char* reason = Line::refusal(operation, shape)) return reason;
    if ((shape.KW - 1) * shape.dilation_w > Sequence::kMostReach) return "the taps reach further than 512 positions";
    return nullptr;
  }

  int64_t workspace_bytes() const { return slots_.bytes(); }

  // An item is a span of a row.
  int64_t items() const { return line_.images * line_.channels * spans_; }

  void run(const Buffers& buffers, int64_t begin, int64_t end) const {
    with_width<kUnrolledBackward<T>>(line_.width, [&](auto width) {
      for (int64_t item = begin; item < end; ++item) {
        Row<decltype(width)::value>(*this, buffers, item / spans_ / line_.channels, item / spans_ % line_.channels)
            .span(item % spans_);
      }
    });
  }

  int64_t sum_items() const { return slots_.items(); }
  void sum(const Buffers& buffers, int64_t begin, int64_t end) const { slots_.add(buffers, begin, end); }

  static constexpr Stage<SequenceRowsBackward> stages[] = {
      {&SequenceRowsBackward::items, &SequenceRowsBackward::run},
      {&SequenceRowsBackward::sum_items, &SequenceRowsBackward::sum}};

 private:
  static constexpr int64_t kBlock = 512, kSpan = 8 * kBlock;

  template <int K>
  struct Row {
    static constexpr int kSums = (K > 0 ? K : int(Sequence::kMostTaps)) + 1;  // the last is the bias's

    const SequenceRowsBackward& kernel;
    const Line& line;
    const Buffers& buffers;
    int64_t image, channel;
    RowTaps<T> taps;
    RowWeights<T, K> weights;
    Vec<A> bias;
    const T* grad_output;
    T* grad_input;
    Vec<A> sums[kSums] = {};
    alignas(64) A g[kBlock + Sequence::kMostReach + 2 * L];  // of the block, then of what follows it

    Row(const SequenceRowsBackward& owner, const Buffers& call, int64_t of_image, int64_t of_channel)
        : kernel(owner),
          line(owner.line_),
          buffers(call),
          image(of_image),
          channel(of_channel),
          taps(line, call, image, channel),
          weights(line, call, channel),
          bias(broadcast<A>(bias_of<T>(call, channel))),
          grad_output(static_cast<const T*>(call.grad_output) + image * call.sequence->grad_output.image +
                      channel * call.sequence->grad_output.step),
          grad_input(static_cast<T*>(call.result) + (image * line.channels + channel) * line.source) {}

    void span(int64_t index) {
      const int64_t first = index * kSpan, last = std::min(line.results, first + kSpan);
      const int64_t behind = std::min(line.results, last + line.reach());
      std::fill(g, g + line.reach() + L, A(0));
      for (int64_t at = last; at < behind; at += L) {
        const Vec<A> value = keep<A>(before<true>(at), lanes<A>(0, behind - at));
        store(g + (at - last), value);
      }
      std::fill(g + (behind - last), g + line.reach() + L, A(0));
      for (int64_t end = last; end > first;) {
        const int64_t begin = first + (end - 1 - first) / kBlock * kBlock;
        block(begin, end);
        end = begin;
      }
      if (first == 0 && buffers.sequence->grad_states) states();
      const int64_t slot = image * kernel.spans_ + index;
      double total[kSums] = {};
      add_sums<A, kSums>(total, sums);
      for (int k = 0; k < line.width; ++k) *kernel.slots_.at(buffers, slot, k, channel) = total[k];
      *kernel.slots_.at(buffers, slot, line.width, channel) = total[kSums - 1];
    }

    void block(int64_t begin, int64_t end) {
      const int64_t size = end - begin;
      A next[Sequence::kMostReach + L];
      std::copy_n(g, line.reach(), next);
      for (int64_t at = begin; at < end;) {
        if (at >= line.reach() && at + L <= end && taps.all_reach(at, 1)) {
          at = inner(at, begin, end);
        } else {
          border(at, begin, end);
          at += L;
        }
      }
      if constexpr (K == 0) tap_sums(begin, end);
      std::copy_n(next, line.reach(), g + size);
      std::fill_n(g + size + line.reach(), L, A(0));
      for (int64_t at = begin; at < end; at += L) spread(at, begin, end);
    }

    // The gradient before the activation, of the vector of results at `at`; its lanes past the end are anything.
    template <bool border>
    DWCONV_INLINE_MEMBER Vec<A> before(int64_t at) const {
      const int64_t left = line.results - at;
      Vec<A> value = border ? load(grad_output + at, lanes<A>(0, left)) : load(grad_output + at);
      if (border) value = taps.keep_wanted(value, at);
      if (buffers.activation == Activation::none) return value;
      Vec<A> sum = bias;
      if constexpr (K == 0 || border) {
        for (int64_t k = 0; k < line.width; ++k) sum += weights[k] * tap<border>(at, k);
      } else {
        DWCONV_UNROLL
        for (int k = 0; k < K; ++k) sum += weights[k] * tap<border>(at, k);
      }
      return before_activation<A>(value, sum, buffers.activation);
    }

    template <bool border>
    DWCONV_INLINE_MEMBER Vec<A> tap(int64_t at, int64_t k) const {
      if constexpr (border) {
        Mask<A> inside;
        return taps.at(at, k, inside);
      } else {
        return load(taps.row + at + k * line.dilation - line.before);
      }
    }

    // One vector of a block, with the taps that it has.
    __attribute__((noinline)) void border(int64_t at, int64_t begin, int64_t end) {
      const Vec<A> value = keep<A>(before<true>(at), lanes<A>(0, end - at));
      store(g + (at - begin), value);
      sums[kSums - 1] += value;
      for (int64_t k = 0; k < (K > 0 ? K : 0); ++k) sums[k] = add_border(sums[k], value, at, k, end);
    }

    // sum + value * tap k where there are both: infinities in one of them do not meet what the other lacks.
    DWCONV_INLINE_MEMBER Vec<A> add_border(Vec<A> sum, Vec<A> value, int64_t at, int64_t k, int64_t end) const {
      Mask<A> inside;
      const Vec<A> x = taps.at(at, k, inside);
      return add_product<A>(sum, value, keep<A>(x, lanes<A>(0, end - at)), inside);
    }

    // The vectors from `at` on that have all taps: returns where they end.
    int64_t inner(int64_t at, int64_t begin, int64_t end) {
      Vec<A> some[K + 1] = {};  // the last is the bias's
      do {
        Vec<A> x[K + 1], value;  // each tap is converted once
        if constexpr (K > 0) {
          Vec<A> sum = bias;
          DWCONV_UNROLL
          for (int k = 0; k < K; ++k) x[k] = tap<false>(at, k), sum += weights[k] * x[k];
          value = before_activation<A>(load(grad_output + at), sum, buffers.activation);
        } else {
          value = before<false>(at);
        }
        store(g + (at - begin), value);
        some[K] += value;
        DWCONV_UNROLL
        for (int k = 0; k < K; ++k) some[k] += value * x[k];
        at += L;
      } while (at + L <= end && taps.all_reach(at, 1));
      DWCONV_UNROLL
      for (int k = 0; k < K; ++k) sums[k] += some[k];
      sums[kSums - 1] += some[K];
      return at;
    }

    // The sums of more taps than registers hold: tap by tap over the block.
    void tap_sums(int64_t begin, int64_t end) {
      for (int64_t k = 0; k < line.width; ++k) {
        Vec<A> some[4] = {};
        int64_t at = begin;
        const auto add = [&](int chain) {
          const Vec<A> value = load(g + (at - begin));
          if (at < line.reach() || at + L > end || !taps.all_reach(at, 1)) {
            some[chain] = add_border(some[chain], value, at, k, end);
          } else {
            some[chain] += value * tap<false>(at, k);
          }
          at += L;
        };
        while (at < end && at < line.reach()) add(0);
        for (; at + 4 * L <= end && taps.all_reach(at, 4); at += 4 * L) {
          DWCONV_UNROLL
          for (int chain = 0; chain < 4; ++chain) {
            some[chain] += load(g + (at - begin) + chain * L) * tap<false>(at + chain * L, k);
          }
        }
        while (at < end) add(0);
        sums[k] += (some[0] + some[1]) + (some[2] + some[3]);
      }
    }

    // The gradient of the input at `at`, out of those of the results that look at it.
    DWCONV_INLINE_MEMBER void spread(int64_t at, int64_t begin, int64_t end) const {
      Vec<A> sum = {};
      const auto add = [&](int64_t k) {
        const int64_t far = (line.width - 1 - k) * line.dilation;
        sum += weights[k] * load(g + (at - begin) + far);
      };
      if (at + line.reach() + L > line.results || !taps.all_reach(at, int(1 + ceil_div(line.reach(), int64_t(L))))) {
        sum = spread_border(at, begin);
      } else if constexpr (K > 0) {
        DWCONV_UNROLL
        for (int k = 0; k < K; ++k) add(k);
      } else {
        for (int64_t k = 0; k < line.width; ++k) add(k);
      }
      if (at + L <= end) {
        store(grad_input + at, sum);
      } else {
        store(grad_input + at, sum, lanes<A>(0, end - at));
      }
    }

    // The same where not all results look at the position, or there are none.
    __attribute__((noinline)) Vec<A> spread_border(int64_t at, int64_t begin) const {
      Vec<A> sum = {};
      for (int64_t k = 0; k < line.width; ++k) {
        const int64_t far = (line.width - 1 - k) * line.dilation, left = line.results - at - far;
        if (left <= 0) continue;  // what lies behind the end of a row is another row's
        Mask<A> looking = lanes<A>(0, left);
        if (taps.reach) looking = both<A>(looking, load_reach<A>(taps.reach + at + far) >= int32_t(far));
        sum = add_product<A>(sum, weights[k], keep<A>(load(g + (at - begin) + far), looking), looking);
      }
      return sum;
    }

    void states() {
      T* result = static_cast<T*>(buffers.sequence->grad_states) + (image * line.channels + channel) * line.reach();
      for (int64_t state = 0; state < line.reach(); ++state) {
        A sum = 0;
        for (int64_t k = 0; k < line.width; ++k) {
          const int64_t far = (line.width - 1 - k) * line.dilation, at = state - line.reach() + far;
          if (at < 0 || at >= line.results || (taps.reach && taps.reach[at] < far)) continue;
          sum += weight_of<T>(line, buffers, channel, k) * g[at];
        }
        from_acc(sum, result + state);
      }
    }
  };

  Line line_;
  int64_t spans_;  // of a row
  Slots<T> slots_;
};

DWCONV_END_TARGET

#endif  // DWCONV_CPU_SEQUENCE_ROWS_BACKWARD_H
