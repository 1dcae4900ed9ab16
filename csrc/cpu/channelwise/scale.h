// channel_scale, channels last (NHWC): every pixel of an image times the scales of its channels.
//
// Method: a vector runs over channels. A few pixels go together and share each load of scales. An element is read before
// it is written and never again, so the result may be the input.
// Bound: one load and one store of a vector.
#if defined(DWCONV_CPU_CHANNELWISE_SCALE_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_CHANNELWISE_SCALE_H
#undef DWCONV_CPU_CHANNELWISE_SCALE_H
#else
#define DWCONV_CPU_CHANNELWISE_SCALE_H
#endif

#include "../axis/tile.h"
#include "../kernel_list.h"

DWCONV_BEGIN_TARGET

template <class T>
class ChannelScale {
 public:
  using A = Acc<T>;
  static constexpr int L = kLanes<A>;

  ChannelScale(Operation, const Shape& s)
      : channels_(s.C), pixels_(s.H * s.W), images_(s.N), blocks_(ceil_div(pixels_, kBlock)) {}

  static const char* supports(Operation, const Shape&) { return nullptr; }

  int64_t workspace_bytes() const { return 0; }

  // An item is a block of pixels of an image.
  int64_t items() const { return images_ * blocks_; }

  void run(const Buffers& buffers, int64_t begin, int64_t end) const {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t n = item / blocks_, first = item % blocks_ * kBlock;
      const A* scale = static_cast<const A*>(buffers.scale) + n * channels_;
      const int64_t last = std::min(pixels_, first + kBlock);
      int64_t pixel = first;
      for (; pixel + kTogether <= last; pixel += kTogether) scale_pixels<kTogether>(buffers, scale, n, pixel);
      for (; pixel < last; ++pixel) scale_pixels<1>(buffers, scale, n, pixel);
    }
  }

  static constexpr Stage<ChannelScale> stages[] = {{&ChannelScale::items, &ChannelScale::run}};

 private:
  static constexpr int kTogether = 4;
  static constexpr int64_t kBlock = 4 * kTogether;

  template <int R>
  DWCONV_INLINE_MEMBER void scale_pixels(const Buffers& buffers, const A* scale, int64_t n, int64_t pixel) const {
    const int64_t first = (n * pixels_ + pixel) * channels_, whole = channels_ / L * L;
    const T* input = static_cast<const T*>(buffers.input) + first;
    T* result = static_cast<T*>(buffers.result) + first;
    for (int64_t c = 0; c < whole; c += L) {
      const Vec<A> factor = load(scale + c);
      DWCONV_UNROLL
      for (int r = 0; r < R; ++r) store(result + r * channels_ + c, load(input + r * channels_ + c) * factor);
    }
    if (whole == channels_) return;
    const Mask<A> mask = lanes<A>(0, channels_ - whole);
    const Vec<A> factor = load(scale + whole, mask);
    DWCONV_UNROLL
    for (int r = 0; r < R; ++r) {
      store(result + r * channels_ + whole, load(input + r * channels_ + whole, mask) * factor, mask);
    }
  }

  int64_t channels_, pixels_, images_;
  int64_t blocks_;  // of pixels of an image
};

DWCONV_END_TARGET

#endif  // DWCONV_CPU_CHANNELWISE_SCALE_H
