// sequence, channels last (NHWC): a 1-D convolution with a stride of 1 along positions.
//
// Method: a vector runs over channels. A tile is eight positions that lie next to each other: each of their source
// positions is loaded once for all the results that it reaches. Tiles go along a chunk of channels, so that memory is read
// and written from end to end, and then on to the next positions, while those that both need are in the cache. Positions
// without all taps are computed one by one.
// Bound: bytes up to about eight taps, FMA from there on; with an activation, its arithmetic.
#if defined(DWCONV_CPU_SEQUENCE_PIXELS_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_SEQUENCE_PIXELS_H
#undef DWCONV_CPU_SEQUENCE_PIXELS_H
#else
#define DWCONV_CPU_SEQUENCE_PIXELS_H
#endif

#include "packed.h"

DWCONV_BEGIN_TARGET

template <class T>
class SequencePixels {
 public:
  using A = Acc<T>;
  static constexpr int L = kLanes<A>;

  SequencePixels(Operation operation, const Shape& shape)
      : line_(operation, shape),
        packed_(line_),
        chunks_(ceil_div(line_.channels, kChunk)),
        spans_(std::max<int64_t>(1, ceil_div(line_.results, kSpan))) {}

  static const char* supports(Operation operation, const Shape& shape) { return Line::refusal(operation, shape); }

  int64_t workspace_bytes() const { return packed_.bytes(); }

  int64_t pack_items() const { return packed_.items(); }
  void pack(const Buffers& buffers, int64_t begin, int64_t end) const {
    packed_.pack(line_, buffers, static_cast<A*>(buffers.workspace), begin, end);
  }

  // An item is a span of positions of a chunk of channels.
  int64_t items() const { return line_.images * spans_ * chunks_; }

  void run(const Buffers& buffers, int64_t begin, int64_t end) const {
    with_width<kUnrolled<T>>(line_.width, [&](auto width) {
      for (int64_t item = begin; item < end; ++item) {
        const int64_t chunk = item % chunks_, span = item / chunks_ % spans_;
        positions<decltype(width)::value>(buffers, item / chunks_ / spans_, span * kSpan,
                                          std::min(line_.results, (span + 1) * kSpan), chunk * kChunk,
                                          std::min(line_.channels, (chunk + 1) * kChunk));
      }
    });
  }

  static constexpr Stage<SequencePixels> stages[] = {{&SequencePixels::pack_items, &SequencePixels::pack},
                                                     {&SequencePixels::items, &SequencePixels::run}};

 private:
  static constexpr int64_t kSpan = 128;
  static constexpr int64_t kChunk = 4096 / int64_t(sizeof(T));
  static constexpr int kTogether = 8;

  // Results [first, last) of channels [channel, channel_end).
  template <int K>
  void positions(const Buffers& buffers, int64_t image, int64_t first, int64_t last, int64_t channel,
                 int64_t channel_end) const {
    const PixelTaps<T> taps(line_, buffers, image);
    T* result = static_cast<T*>(buffers.result) + image * line_.results * line_.channels;
    const bool streams = kStreams<T> && line_.is_large(sizeof(T)) && is_line(result) && line_.channels % L == 0;
    const A* packed = static_cast<const A*>(buffers.workspace);
    const int64_t whole = channel + (channel_end - channel) / L * L;
    int64_t at = first;
    while (at < last) {
      if (at + kTogether <= last && taps.inner(at, kTogether)) {
        for (int64_t c = channel; c < whole; c += L) {
          tile<K>(taps, packed + c, result + at * line_.channels + c, at, c, streams, buffers.activation);
        }
        if (whole < channel_end) {
          const Mask<A> mask = lanes<A>(0, channel_end - whole);
          for (int r = 0; r < kTogether; ++r) single(taps, packed, result, at + r, whole, mask, buffers.activation);
        }
        at += kTogether;
        continue;
      }
      for (int64_t c = channel; c < channel_end; c += L) {
        single(taps, packed, result, at, c, lanes<A>(0, channel_end - c), buffers.activation);
      }
      ++at;
    }
    if (streams) end_of_streams();
  }

  template <int K>
  DWCONV_INLINE_MEMBER void tile(const PixelTaps<T>& taps, const A* packed, T* result, int64_t at, int64_t channel,
                                 bool streams, Activation activation) const {
    Vec<A> sums[kTogether];
    const Vec<A> bias = load(packed + line_.width * packed_.pitch);
    DWCONV_UNROLL
    for (int r = 0; r < kTogether; ++r) sums[r] = bias;
    const T* from = taps.position(at - line_.before) + channel;
    if constexpr (K > 0) {
      if (line_.dilation == 1) {
        Vec<A> weights[K];
        DWCONV_UNROLL
        for (int k = 0; k < K; ++k) weights[k] = load_once(packed + k * packed_.pitch);
        DWCONV_UNROLL
        for (int i = 0; i < kTogether + K - 1; ++i) {
          const Vec<A> x = load(from);
          advance(from, taps.step());
          DWCONV_UNROLL
          for (int k = 0; k < K; ++k) {
            if (k <= i && i - k < kTogether) sums[i - k] += weights[k] * x;
          }
        }
        return finish(sums, result, streams, activation);
      }
    }
    for (int64_t k = 0; k < line_.width; ++k) {
      const Vec<A> weight = load(packed + k * packed_.pitch);
      const T* x = from + k * line_.dilation * taps.step();
      DWCONV_UNROLL
      for (int r = 0; r < kTogether; ++r) {
        sums[r] += weight * load(x);
        advance(x, taps.step());
      }
    }
    finish(sums, result, streams, activation);
  }

  DWCONV_INLINE_MEMBER void finish(Vec<A> (&sums)[kTogether], T* result, bool streams, Activation activation) const {
    apply<T, kTogether>(sums, activation);
    DWCONV_UNROLL
    for (int r = 0; r < kTogether; ++r) {
      if (kStreams<T> && streams) {
        stream(result, sums[r]);
      } else {
        store(result, sums[r]);
      }
      advance(result, line_.channels);
    }
  }

  // One position, with the taps that it has.
  __attribute__((noinline)) void single(const PixelTaps<T>& taps, const A* packed, T* result, int64_t at,
                                        int64_t channel, Mask<A> mask, Activation activation) const {
    Vec<A> sums[1] = {load(packed + line_.width * packed_.pitch + channel)};
    for (int64_t k = 0; k < line_.width; ++k) {
      if (const T* x = taps.at(at, k)) sums[0] += load(packed + k * packed_.pitch + channel) * load(x + channel, mask);
    }
    apply<T, 1>(sums, activation);
    if (!taps.wanted(at)) sums[0] = Vec<A>{};
    store(result + at * line_.channels + channel, sums[0], mask);
  }

  Line line_;
  Packed<T> packed_;
  int64_t chunks_;  // of channels
  int64_t spans_;   // of positions
};

DWCONV_END_TARGET

#endif  // DWCONV_CPU_SEQUENCE_PIXELS_H
