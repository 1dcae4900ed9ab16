// channel_sum, channels last (NHWC): the sum of each channel of an image over its pixels, in the accumulator's type.
//
// Method: a vector runs over channels. An item goes down all pixels for a few vectors of channels that lie next to each
// other, so that the order of a sum is that of the shape. Terms of a chunk of pixels are added up in eight chains; what
// a total loses of a chunk is kept beside it (Kahan).
// Bound: one load of a vector.
#if defined(DWCONV_CPU_CHANNELWISE_SUM_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_CHANNELWISE_SUM_H
#undef DWCONV_CPU_CHANNELWISE_SUM_H
#else
#define DWCONV_CPU_CHANNELWISE_SUM_H
#endif

#include "../axis/tile.h"
#include "../kernel_list.h"

DWCONV_BEGIN_TARGET

template <class T>
class ChannelSum {
 public:
  using A = Acc<T>;
  static constexpr int L = kLanes<A>;

  ChannelSum(Operation, const Shape& s)
      : channels_(s.C), pixels_(s.H * s.W), images_(s.N), blocks_(ceil_div(channels_, kBlock * L)) {}

  static const char* supports(Operation, const Shape&) { return nullptr; }

  int64_t workspace_bytes() const { return 0; }

  // An item is a block of channels of an image.
  int64_t items() const { return images_ * blocks_; }

  void run(const Buffers& buffers, int64_t begin, int64_t end) const {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t n = item / blocks_, first = item % blocks_ * kBlock * L;
      const T* input = static_cast<const T*>(buffers.input) + n * pixels_ * channels_ + first;
      A* result = static_cast<A*>(buffers.result) + n * channels_ + first;
      const int64_t count = std::min(channels_ - first, kBlock * L);
      const auto add = count > 3 * L   ? &ChannelSum::add_pixels<4>
                       : count > 2 * L ? &ChannelSum::add_pixels<3>
                       : count > L     ? &ChannelSum::add_pixels<2>
                                       : &ChannelSum::add_pixels<1>;
      (this->*add)(input, result, count);
    }
  }

  static constexpr Stage<ChannelSum> stages[] = {{&ChannelSum::items, &ChannelSum::run}};

 private:
  static constexpr int64_t kBlock = 4;   // vectors
  static constexpr int64_t kChunk = 32;  // terms of a chain

  // V vectors, the last of which may be partial.
  template <int V>
  void add_pixels(const T* input, A* result, int64_t count) const {
    const Mask<A> last = lanes<A>(0, count - (V - 1) * L);
    last.full() ? add_vectors<V, true>(input, result, last) : add_vectors<V, false>(input, result, last);
  }

  template <int V, bool whole>
  void add_vectors(const T* input, A* result, Mask<A> last) const {
    constexpr int kChains = V == 1 ? 8 : V == 2 ? 4 : 2;  // of each vector
    Vec<A> total[V] = {}, lost[V] = {};
    for (int64_t pixel = 0; pixel < pixels_;) {
      Vec<A> sums[kChains][V] = {};
      const int64_t end = std::min(pixels_, pixel + kChunk * kChains);
      for (; pixel + kChains <= end; pixel += kChains) {
        DWCONV_UNROLL
        for (int chain = 0; chain < kChains; ++chain) {
          add_pixel<V, whole>(sums[chain], input + (pixel + chain) * channels_, last);
        }
      }
      for (; pixel < end; ++pixel) add_pixel<V, whole>(sums[0], input + pixel * channels_, last);
      DWCONV_UNROLL
      for (int count = kChains; count > 1; count /= 2) {
        DWCONV_UNROLL
        for (int chain = 0; chain < count / 2; ++chain) {
          DWCONV_UNROLL
          for (int v = 0; v < V; ++v) sums[chain][v] += sums[chain + count / 2][v];
        }
      }
      DWCONV_UNROLL
      for (int v = 0; v < V; ++v) {
        const Vec<A> term = sums[0][v] - lost[v], next = total[v] + term;
        // What an infinite total has lost is not a number.
        lost[v] = next - next == 0 ? (next - total[v]) - term : Vec<A>{};
        total[v] = next;
      }
    }
    DWCONV_UNROLL
    for (int v = 0; v < V - !whole; ++v) store(result + v * L, total[v]);
    if constexpr (!whole) store(result + (V - 1) * L, total[V - 1], last);
  }

  template <int V, bool whole>
  DWCONV_INLINE void add_pixel(Vec<A> (&sums)[V], const T* pixel, const Mask<A>& last) {
    DWCONV_UNROLL
    for (int v = 0; v < V - !whole; ++v) sums[v] += load(pixel + v * L);
    if constexpr (!whole) sums[V - 1] += load(pixel + (V - 1) * L, last);
  }

  int64_t channels_, pixels_, images_;
  int64_t blocks_;  // of channels
};

DWCONV_END_TARGET

#endif  // DWCONV_CPU_CHANNELWISE_SUM_H
