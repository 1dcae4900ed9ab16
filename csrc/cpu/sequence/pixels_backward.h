// sequence_backward channels last (NHWC): the gradients of the input, the states, the weight and the bias, in one pass
// over the positions.
//
// Method: a vector runs over channels and goes down the positions. Up to eight taps without a dilation roll through
// registers: the positions that the next result looks at, the gradients of the input that are not whole yet, and the sums
// of the weight's gradient. Otherwise a span of gradients before the activation goes to a buffer, and each tap passes over
// it. The next vector's memory is fetched ahead, since rows of positions lie far apart.
// Bound: bytes for a few taps, FMA (three for each tap) from there on; with an activation, its arithmetic.
#if defined(DWCONV_CPU_SEQUENCE_PIXELS_BACKWARD_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_SEQUENCE_PIXELS_BACKWARD_H
#undef DWCONV_CPU_SEQUENCE_PIXELS_BACKWARD_H
#else
#define DWCONV_CPU_SEQUENCE_PIXELS_BACKWARD_H
#endif

#include "packed.h"
#include "sums.h"

DWCONV_BEGIN_TARGET

template <class T>
class SequencePixelsBackward {
 public:
  using A = Acc<T>;
  static constexpr int L = kLanes<A>;

  SequencePixelsBackward(Operation operation, const Shape& shape)
      : line_(operation, shape),
        packed_(line_),
        vectors_(ceil_div(line_.channels, L)),
        spans_(std::max<int64_t>(1, ceil_div(line_.results, kSpan))),
        slots_(line_, line_.images * spans_) {}

  static const char* supports(Operation operation, const Shape& shape) {
    if (const char* reason = Line::refusal(operation, shape)) return reason;
    if ((shape.KW - 1) * shape.dilation_w > Sequence::kMostReach) return "the taps reach further than 512 positions";
    return nullptr;
  }

  // Sums first, then the weights.
  int64_t workspace_bytes() const { return slots_.bytes() + packed_.bytes(); }
  A* weights(const Buffers& buffers) const {
    return reinterpret_cast<A*>(static_cast<unsigned char*>(buffers.workspace) + slots_.bytes());
  }

  int64_t pack_items() const { return packed_.items(); }
  void pack(const Buffers& buffers, int64_t begin, int64_t end) const {
    packed_.pack(line_, buffers, weights(buffers), begin, end);
  }

  // An item is a span of positions of a vector of channels.
  int64_t items() const { return line_.images * spans_ * vectors_; }
  void run(const Buffers& buffers, int64_t begin, int64_t end) const {
    with_width<kUnrolledBackward<T>>(line_.dilation == 1 ? line_.width : 0, [&](auto width) {
      for (int64_t item = begin; item < end; ++item) {
        Span<decltype(width)::value> span(*this, buffers, item / vectors_ / spans_, item / vectors_ % spans_,
                                          item % vectors_ * L);
        span.run();
      }
    });
  }

  int64_t sum_items() const { return slots_.items(); }
  void sum(const Buffers& buffers, int64_t begin, int64_t end) const { slots_.add(buffers, begin, end); }

  static constexpr Stage<SequencePixelsBackward> stages[] = {
      {&SequencePixelsBackward::pack_items, &SequencePixelsBackward::pack},
      {&SequencePixelsBackward::items, &SequencePixelsBackward::run},
      {&SequencePixelsBackward::sum_items, &SequencePixelsBackward::sum}};

 private:
  static constexpr int64_t kSpan = 256;

  template <int K>
  struct Span {
    const SequencePixelsBackward& kernel;
    const Line& line;
    const Buffers& buffers;
    int64_t image, index, channel;
    PixelTaps<T> taps;
    Mask<A> mask;
    const A* packed;
    const T* grad_output;
    T* grad_input;
    T* grad_states;
    int64_t first, last, behind;  // results whose terms count, and those after them that look at their positions

    Span(const SequencePixelsBackward& owner, const Buffers& call, int64_t of_image, int64_t of_span,
         int64_t of_channel)
        : kernel(owner),
          line(owner.line_),
          buffers(call),
          image(of_image),
          index(of_span),
          channel(of_channel),
          taps(line, call, image),
          mask(lanes<A>(0, line.channels - channel)),
          packed(owner.weights(call) + channel),
          grad_output(static_cast<const T*>(call.grad_output) + image * call.sequence->grad_output.image + channel),
          grad_input(static_cast<T*>(call.result) + image * line.source * line.channels + channel),
          grad_states(static_cast<T*>(call.sequence->grad_states)),
          first(of_span * kSpan),
          last(std::min(line.results, first + kSpan)),
          behind(std::min(line.results, last + line.reach())) {
      if (grad_states) grad_states += image * line.reach() * line.channels + channel;
    }

    DWCONV_INLINE_MEMBER Vec<A> weight(int64_t k) const { return load(packed + k * kernel.packed_.pitch); }
    DWCONV_INLINE_MEMBER Vec<A> source(int64_t at, int64_t k) const {
      const T* x = taps.at(at, k);
      return x ? load(x + channel, mask) : Vec<A>{};
    }
    DWCONV_INLINE_MEMBER Vec<A> incoming(int64_t at) const {
      const T* from = grad_output + at * buffers.sequence->grad_output.step;
      __builtin_prefetch(from + 2 * L);
      return taps.wanted(at) ? load(from, mask) : Vec<A>{};
    }
    // The gradient of the input, or of a state, at `at`, if it is this span's.
    DWCONV_INLINE_MEMBER void put(int64_t at, Vec<A> value) const {
      if (at >= 0) {
        if (at >= first) store(grad_input + at * line.channels, value, mask);
      } else if (first == 0 && grad_states) {
        store(grad_states + (line.reach() + at) * line.channels, value, mask);
      }
    }
    void put_sum(int64_t k, Vec<A> value) const {
      A lane[L];
      store(lane, value);
      double* to = kernel.slots_.at(buffers, image * kernel.spans_ + index, k, channel);
      for (int64_t i = 0; i < std::min<int64_t>(L, line.channels - channel); ++i) to[i] = lane[i];
    }

    void run() {
      if constexpr (K > 0) {
        roll();
      } else {
        pass();
      }
    }

    // The position itself, a state, or nothing.
    Vec<A> earlier(int64_t at) const {
      const T* x = taps.earlier(at);
      return x ? load(x + channel, mask) : Vec<A>{};
    }

    // unfinished[k] is the gradient of the input at `at - R + k`, x[k] the input there.
    struct Registers {
      static constexpr int R = K > 0 ? K - 1 : 0;
      Vec<A> weights[R + 1], bias, x[R + 1], unfinished[R + 1] = {}, sums[R + 1] = {}, bias_sum = {};
    };
    static constexpr int R = Registers::R;

    void roll() {
      Registers v;
      DWCONV_UNROLL
      for (int k = 0; k <= R; ++k) v.weights[k] = weight(k);
      v.bias = weight(line.width);
      DWCONV_UNROLL
      for (int k = 0; k < R; ++k) v.x[k] = earlier(first - R + k);
      int64_t at = first;
      for (; at < last; ++at) has_all(at) ? step<true, true>(v, at) : step<true, false>(v, at);
      for (; at < behind; ++at) has_all(at) ? step<false, true>(v, at) : step<false, false>(v, at);
      DWCONV_UNROLL
      for (int k = 0; k < R; ++k) {
        if (at - R + k < last) put(at - R + k, v.unfinished[k]);
      }
      DWCONV_UNROLL
      for (int k = 0; k <= R; ++k) put_sum(k, v.sums[k]);
      put_sum(line.width, v.bias_sum);
    }

    DWCONV_INLINE_MEMBER bool has_all(int64_t at) const { return taps.reach(at) >= R && taps.earlier(at - R); }

    template <bool counts, bool full>
    DWCONV_INLINE_MEMBER void step(Registers& v, int64_t at) const {
      const int64_t reach = full ? R : taps.reach(at);
      const T* from = taps.position(at) + channel;
      __builtin_prefetch(from + 2 * L);
      v.x[R] = load(from, mask);
      Vec<A> g = incoming(at);
      if (buffers.activation != Activation::none) {
        Vec<A> sum = v.bias;
        DWCONV_UNROLL
        for (int k = 0; k <= R; ++k) {
          if (full || R - k <= reach) sum += v.weights[k] * v.x[k];
        }
        g = before_activation<A>(g, sum, buffers.activation);
      }
      DWCONV_UNROLL
      for (int k = 0; k <= R; ++k) {
        if (!full && R - k > reach) continue;
        v.unfinished[k] += v.weights[k] * g;
        // An infinite gradient does not meet what is not there.
        if (counts && (full || taps.earlier(at - R + k))) v.sums[k] += v.x[k] * g;
      }
      if (counts) v.bias_sum += g;
      put(at - R, v.unfinished[0]);
      DWCONV_UNROLL
      for (int k = 0; k < R; ++k) v.x[k] = v.x[k + 1], v.unfinished[k] = v.unfinished[k + 1];
      v.unfinished[R] = Vec<A>{};
    }

    static constexpr int kTogether = 4;

    void pass() {
      Vec<A> g[K > 0 ? 1 : kSpan + Sequence::kMostReach];  // before the activation, from `first` on
      int64_t at = first;
      for (; at + kTogether <= behind; at += kTogether) {
        if (taps.inner(at, kTogether)) {
          before<kTogether>(at, g + (at - first));
        } else {
          for (int r = 0; r < kTogether; ++r) before<1>(at + r, g + (at - first) + r);
        }
      }
      for (; at < behind; ++at) before<1>(at, g + (at - first));
      for (int64_t k = 0; k < line.width; ++k) put_sum(k, tap_sum(g, k));
      Vec<A> total = {};
      for (at = first; at < last; ++at) total += g[at - first];
      put_sum(line.width, total);
      for (at = first == 0 && grad_states ? -line.reach() : first; at < last; ++at) put(at, spread(g, at));
    }

    template <int N>
    DWCONV_INLINE_MEMBER void before(int64_t at, Vec<A>* g) const {
      Vec<A> value[N], sums[N];
      DWCONV_UNROLL
      for (int r = 0; r < N; ++r) value[r] = incoming(at + r), sums[r] = weight(line.width);
      if (buffers.activation != Activation::none) {
        for (int64_t k = 0; k < line.width; ++k) {
          const Vec<A> tap = weight(k);
          DWCONV_UNROLL
          for (int r = 0; r < N; ++r) sums[r] += tap * source(at + r, k);
        }
      }
      DWCONV_UNROLL
      for (int r = 0; r < N; ++r) g[r] = before_activation<A>(value[r], sums[r], buffers.activation);
    }

    DWCONV_INLINE_MEMBER Vec<A> tap_sum(const Vec<A>* g, int64_t k) const {
      Vec<A> some[kTogether] = {};
      const auto add = [&](Vec<A>& sum, int64_t result) {
        if (const T* x = taps.at(result, k)) sum += load(x + channel, mask) * g[result - first];
      };
      int64_t at = first;
      for (; at + kTogether <= last; at += kTogether) {
        DWCONV_UNROLL
        for (int r = 0; r < kTogether; ++r) add(some[r], at + r);
      }
      for (; at < last; ++at) add(some[0], at);
      return (some[0] + some[1]) + (some[2] + some[3]);
    }

    DWCONV_INLINE_MEMBER Vec<A> spread(const Vec<A>* g, int64_t at) const {
      Vec<A> some[2] = {};
      for (int64_t k = 0; k < line.width; ++k) {
        const int64_t far = (line.width - 1 - k) * line.dilation, from = at + far;
        if (from < first || from >= behind || taps.reach(from) < far) continue;
        some[k & 1] += weight(k) * g[from - first];
      }
      return some[0] + some[1];
    }
  };

  Line line_;
  Packed<T> packed_;
  int64_t vectors_;  // of channels
  int64_t spans_;    // of positions
  Slots<T> slots_;
};

DWCONV_END_TARGET

#endif  // DWCONV_CPU_SEQUENCE_PIXELS_BACKWARD_H
