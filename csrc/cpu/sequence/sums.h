// The sums of the weight's and the bias's gradient: each item of the first stage has a slot of its own, which a later
// stage adds up in order.
#if defined(DWCONV_CPU_SEQUENCE_SUMS_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_SEQUENCE_SUMS_H
#undef DWCONV_CPU_SEQUENCE_SUMS_H
#else
#define DWCONV_CPU_SEQUENCE_SUMS_H
#endif

#include "line.h"

DWCONV_BEGIN_TARGET

template <class T>
struct Slots {
  using A = Acc<T>;
  static constexpr int64_t kBlock = 64;

  int64_t count, width, channels;

  Slots(const Line& line, int64_t slots) : count(slots), width(line.width), channels(line.channels) {}

  int64_t bytes() const { return count * (width + 1) * channels * int64_t(sizeof(double)); }
  // Where the channel's sum of tap k is; of the bias, tap `width`.
  double* at(const Buffers& buffers, int64_t slot, int64_t k, int64_t channel) const {
    return static_cast<double*>(buffers.workspace) + (slot * (width + 1) + k) * channels + channel;
  }

  // An item is a block of channels.
  int64_t items() const { return ceil_div(channels, kBlock); }
  void add(const Buffers& buffers, int64_t begin, int64_t end) const {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t channel = block * kBlock, some = std::min(kBlock, channels - channel);
      for (int64_t k = 0; k <= width; ++k) {
        if (k == width && !buffers.grad_bias) break;
        double sums[kBlock] = {};
        for (int64_t slot = 0; slot < count; ++slot) {
          const double* part = at(buffers, slot, k, channel);
          for (int64_t i = 0; i < some; ++i) sums[i] += part[i];
        }
        for (int64_t i = 0; i < some; ++i) {
          if (k == width) {
            put(buffers.grad_bias, buffers.sequence->wide_bias, channel + i, sums[i]);
          } else {
            put(buffers.grad_weight, buffers.sequence->wide_weight, (channel + i) * width + k, sums[i]);
          }
        }
      }
    }
  }

 private:
  static void put(void* p, bool wide, int64_t index, double value) {
    if (wide) {
      static_cast<A*>(p)[index] = A(value);
    } else {
      from_acc(A(value), static_cast<T*>(p) + index);
    }
  }
};

// g times the derivative of the activation where its argument is s.
template <class A>
DWCONV_INLINE Vec<A> before_activation(Vec<A> g, Vec<A> s, Activation activation) {
  if (activation != Activation::silu) return g;
  if constexpr (sizeof(A) == 4) {
    const Vec<A> p = sigmoid(s);
    return g * (p * (1.0f + s * (1.0f - p)));
  } else {
    for (int i = 0; i < kLanes<A>; ++i) {
      const A p = 1 / (1 + std::exp(-s[i]));
      g[i] *= p * (1 + s[i] * (1 - p));
    }
    return g;
  }
}

DWCONV_END_TARGET

#endif  // DWCONV_CPU_SEQUENCE_SUMS_H
