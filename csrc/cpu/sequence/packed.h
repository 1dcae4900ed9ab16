// What the channels-last kernels of this folder share: weights tap by tap, and where positions lie.
#if defined(DWCONV_CPU_SEQUENCE_PACKED_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_SEQUENCE_PACKED_H
#undef DWCONV_CPU_SEQUENCE_PACKED_H
#else
#define DWCONV_CPU_SEQUENCE_PACKED_H
#endif

#include "line.h"

DWCONV_BEGIN_TARGET

// Weights as [tap][channel], then the bias, in the accumulator's type; zero past the last channel, up to a whole vector.
template <class T>
struct Packed {
  using A = Acc<T>;
  static constexpr int64_t kBlock = 64;

  int64_t width, channels, pitch;

  explicit Packed(const Line& line)
      : width(line.width), channels(line.channels), pitch(ceil_div(line.channels, kBlock) * kBlock) {}

  int64_t elements() const { return (width + 1) * pitch; }
  int64_t bytes() const { return elements() * int64_t(sizeof(A)); }

  // An item is a block of channels.
  int64_t items() const { return pitch / kBlock; }
  void pack(const Line& line, const Buffers& buffers, A* packed, int64_t begin, int64_t end) const {
    for (int64_t channel = begin * kBlock; channel < end * kBlock; ++channel) {
      const bool is_one = channel < channels;
      for (int64_t k = 0; k < width; ++k) {
        packed[k * pitch + channel] = is_one ? weight_of<T>(line, buffers, channel, k) : A(0);
      }
      packed[width * pitch + channel] = is_one ? bias_of<T>(buffers, channel) : A(0);
    }
  }
};

// Where the positions of an image lie, and those before the first.
template <class T>
class PixelTaps {
 public:
  DWCONV_INLINE_MEMBER PixelTaps(const Line& line, const Buffers& buffers, int64_t image)
      : line_(line), step_(line.channels), states_(nullptr), reach_(nullptr) {
    const void* source = line.reversed ? buffers.grad_output : buffers.input;
    const Sequence* sequence = buffers.sequence;
    if (!sequence) {
      image_ = static_cast<const T*>(source) + image * line.channels * line.source;
      return;
    }
    step_ = sequence->input.step;
    image_ = static_cast<const T*>(source) + image * sequence->input.image;
    if (sequence->states) {
      states_ = static_cast<const T*>(sequence->states) + image * line.channels * line.reach();
    }
    if (sequence->reach) reach_ = sequence->reach + image * line.source;
  }

  int64_t step() const { return step_; }
  DWCONV_INLINE_MEMBER const T* position(int64_t at) const { return image_ + at * step_; }

  // Whether results [at, at + count) have all of their taps in the image.
  DWCONV_INLINE_MEMBER bool inner(int64_t at, int64_t count) const {
    const int64_t first = at - line_.before;
    if (first < 0 || first + count - 1 + line_.reach() >= line_.source) return false;
    if (reach_) {
      for (int64_t r = 0; r < count; ++r) {
        if (reach_[at + r] < line_.reach()) return false;
      }
    }
    return true;
  }

  // How far result `at` may look back.
  DWCONV_INLINE_MEMBER int64_t reach(int64_t at) const { return reach_ ? reach_[at] : line_.reach(); }
  bool wanted(int64_t at) const { return !reach_ || reach_[at] >= 0; }

  // Tap k of result `at`; null if there is none.
  DWCONV_INLINE_MEMBER const T* at(int64_t at, int64_t k) const {
    const int64_t from = at + k * line_.dilation - line_.before;
    if (from >= line_.source || (line_.width - 1 - k) * line_.dilation > reach(at)) return nullptr;
    return earlier(from);
  }

  // A position, a state before the first, or null.
  DWCONV_INLINE_MEMBER const T* earlier(int64_t at) const {
    if (at >= 0) return position(at);
    const int64_t state = line_.reach() + at;
    return states_ && state >= 0 ? states_ + state * line_.channels : nullptr;
  }

 private:
  const Line& line_;
  const T* image_;
  int64_t step_;
  const T* states_;
  const int32_t* reach_;
};

DWCONV_END_TARGET

#endif  // DWCONV_CPU_SEQUENCE_PACKED_H
