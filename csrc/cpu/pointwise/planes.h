// pointwise and pointwise_grad_input, planes (NCHW): results = matrix * sources, for each image.
//
// Method: the tiles of the dense convolution (dense/tile.h) with the parts exchanged: weights are broadcast, and a panel
// holds 16 pixels of each source channel. Pixels of all images are counted on, so a panel may end in the next image:
//
//   weights of results    panel of pixels         sums
//   w00 w01 w02 ...    *  [a0 a1 a2 ... b0 b1]    [..]      image a ends after 14 pixels of its last panel
//   w10 w11 w12 ...
//
// A block of pixels is copied into panels, some source channels at a time, so that the panels of a tile stay in L1; the
// results of a block wait in memory for the next channels.
// Bound: FMA; bytes where channels are few.
#if defined(DWCONV_CPU_POINTWISE_PLANES_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_POINTWISE_PLANES_H
#undef DWCONV_CPU_POINTWISE_PLANES_H
#else
#define DWCONV_CPU_POINTWISE_PLANES_H
#endif

#include "../dense/tile.h"
#include "../kernel_list.h"
#include "ahead.h"
#include "supports.h"

DWCONV_BEGIN_TARGET

template <class T>
class PointwisePlanes {
 public:
  PointwisePlanes(Operation operation, const Shape& s)
      : is_gradient_(operation == Operation::pointwise_grad_input),
        plane_(s.H * s.W),
        pixels_(s.N * plane_),
        sources_(is_gradient_ ? s.M : s.C),
        results_(is_gradient_ ? s.C : s.M),
        weight_pitch_(s.C) {
    // Of equal size, and one of nothing where there are no sources: the results are the bias then.
    chunk_ = std::max<int64_t>(1, ceil_div(sources_, std::max<int64_t>(1, ceil_div(sources_, kMostChannels))));
    const int64_t most = std::clamp<int64_t>(kPanelElements / (chunk_ * kPanel), kGroup, kMostBlock);
    panels_ = most / kGroup * kGroup;
  }

  static const char* supports(Operation, const Shape& s) { return pointwise_refusal(s); }

  int64_t workspace_bytes() const { return 0; }

  // An item is a block of pixels.
  int64_t items() const { return results_ > 0 ? ceil_div(pixels_, panels_ * kPanel) : 0; }

  void run(const Buffers& buffers, int64_t begin, int64_t end) const {
    Call call;
    call.self = this;
    call.weight = static_cast<const T*>(buffers.weight);
    call.bias = static_cast<const T*>(buffers.bias);
    call.result = static_cast<T*>(buffers.result);
    const T* source = static_cast<const T*>(is_gradient_ ? buffers.grad_output : buffers.input);
    alignas(64) T memory[kPanelElements];
    Place places[kMostBlock * P];
    call.memory = memory;
    for (int64_t item = begin; item < end; ++item) {
      const int64_t first = item * panels_ * kPanel, count = std::min(panels_ * kPanel, pixels_ - first);
      for (int64_t j = 0; j < ceil_div(count, kPanel) * P; ++j) places[j] = place(first + j * L);
      int64_t channel = 0;
      do {
        const int64_t channels = std::min(chunk_, sources_ - channel);
        pack(source, channel, channels, first, count, memory);
        const bool is_last = channel + channels >= sources_;
        const Place next = is_last ? place(first + count) : places[0];
        call.next = source + (next.image * sources_ + (is_last ? 0 : channel + channels)) * plane_ + next.pixel;
        if (is_gradient_) {
          multiply_block<true>(call, places, channel, channels, count);
        } else {
          multiply_block<false>(call, places, channel, channels, count);
        }
        channel += channels;
      } while (channel < sources_);
    }
  }

  static constexpr Stage<PointwisePlanes> stages[] = {{&PointwisePlanes::items, &PointwisePlanes::run}};

 private:
  using A = Acc<T>;
  static_assert(std::is_same_v<A, T>, "tiles read the tensors themselves");
  static constexpr int L = kLanes<A>, P = kPanelVectors<A>, kGroup = kMostPanels<A>;
  // Panels of a group take 18 KB of L1, those of a block 32 KB, which L2 hands out. With twice as many channels planes of
  // 56x56 took 1.3 times as long, since pages and lines of more planes are wanted at once.
  static constexpr int64_t kMostChannels = 96;
  static constexpr int64_t kPanelElements = 32768 / sizeof(A), kMostBlock = 24;
  static_assert(kMostChannels * kPanel * kGroup <= kPanelElements);

  // Where the pixels of a vector are: the first one, how many there are (none past the last pixel of all), and whether
  // they fill the vector and are all in that image.
  struct Place {
    int64_t image, pixel;
    int count;
    bool whole;
  };
  struct Call {
    const PointwisePlanes* self;
    const T *weight, *bias;
    T *result, *memory;
    const T* next;  // what is packed after these panels
  };

  Place place(int64_t pixel) const {
    const int64_t in_plane = pixel % plane_;
    const int count = int(std::min<int64_t>(L, pixels_ - pixel));
    return {pixel / plane_, in_plane, count, count == L && in_plane + L <= plane_};
  }

  // Calls f(element of channel 0, lanes that are in one image...) for the parts of a vector; lane 0 would be at that element.
  template <class F>
  DWCONV_INLINE_MEMBER void parts(const Place& place, int64_t channels, F f) const {
    if (__builtin_expect(place.whole, 1)) {
      f(place.image * channels * plane_ + place.pixel);
      return;
    }
    int64_t image = place.image, pixel = place.pixel;
    for (int lane = 0; lane < place.count; ++image, pixel = 0) {
      const int end = int(std::min<int64_t>(place.count, lane + plane_ - pixel));
      f(image * channels * plane_ + pixel - lane, Mask<A>(lane, end));
      lane = end;
    }
  }

  // Pixels of some channels to panels, of which the last has zeros past the last pixel.
  void pack(const T* source, int64_t channel, int64_t channels, int64_t first, int64_t count, T* panels) const {
    const int64_t size = channels * kPanel;
    if (count % kPanel) std::fill_n(panels + count / kPanel * size, size, T());
    for (int64_t at = 0; at < count;) {
      const int64_t image = (first + at) / plane_, pixel = (first + at) % plane_;
      const int64_t end = std::min(count, at + plane_ - pixel);
      const T* from = source + (image * sources_ + channel) * plane_ + pixel - at;  // of column 0 of the block
      const int64_t whole = std::min(end, ceil_div(at, L) * L), tail = std::max(whole, end / L * L);
      const Mask<A> before = lanes<A>(at % L, at % L + whole - at), after = lanes<A>(0, end - tail);
      T* to = panels;
      for (int64_t c = 0; c < channels; ++c, from += plane_, to += kPanel) {
        const auto column = [&](int64_t x) { return to + x / kPanel * size + x % kPanel; };
        if (at < whole) store(column(at / L * L), load(from + at / L * L, before), before);
        for (int64_t x = whole; x < tail; x += L) store(column(x), load(from + x));
        if (tail < end) store(column(tail), load(from + tail, after), after);
      }
      at = end;
    }
  }

  // All results of a block, by these channels of the sources. A few results of all its pixels at a time: memory is
  // written in long runs, which hardware fetches ahead.
  template <bool across>
  void multiply_block(const Call& call, const Place* places, int64_t channel, int64_t channels, int64_t count) const {
    const int64_t panels = ceil_div(count, kPanel);
    const int64_t tiles = ceil_div(results_, kMostPixels<A, kGroup>) * ceil_div(panels, kGroup);
    int64_t tile = 0;
    for_even_tiles(results_, kMostPixels<A, kGroup>, [&](int64_t row, int64_t rows) {
      for_groups<A>(0, panels, [&](auto group, int64_t panel) {
        const T* next = call.next + std::min(panels - 1, tile++ * panels / tiles) * kPanel;
        Tiles<group.value, across>::of_rows[rows - 1](call, places + panel * P, panel, row, channel, channels, next);
      });
    });
  }

  template <int R, int V, bool across>
  static void tile(const Call& call, const Place* places, int64_t panel, int64_t row, int64_t channel, int64_t channels,
                   const T* next) {
    const PointwisePlanes& self = *call.self;
    Vec<A> sums[R * V * P];
    const auto each = [&](auto f) __attribute__((always_inline)) {
      DWCONV_UNROLL
      for (int j = 0; j < V * P; ++j) {
        self.parts(places[j], self.results_, [&](int64_t element, auto... mask) __attribute__((always_inline)) {
          T* to = call.result + element + row * self.plane_;
          DWCONV_UNROLL
          for (int r = 0; r < R; ++r, to += self.plane_) f(sums[r * V * P + j], to, mask...);
        });
      }
    };
    DWCONV_UNROLL
    for (int r = 0; r < R; ++r) {
      const Vec<A> bias = channel == 0 && call.bias ? broadcast<A>(call.bias[row + r]) : Vec<A>{};
      DWCONV_UNROLL
      for (int j = 0; j < V * P; ++j) sums[r * V * P + j] = bias;
    }
    const int64_t pitch = self.weight_pitch_, size = channels * kPanel;
    const T* weight = call.weight + (across ? channel * pitch + row : row * pitch + channel);
    LinesAhead<T, 2> ahead = {next, self.plane_};
    multiply<T, R, V, across>(weight, pitch, call.memory + panel * size, size, ahead, channels, sums);
    if (channel > 0) {
      each([](Vec<A>& sum, const T* from, auto... mask) __attribute__((always_inline)) { sum += load(from, mask...); });
    }
    each([](const Vec<A>& sum, T* to, auto... mask) __attribute__((always_inline)) { store(to, sum, mask...); });
  }

  template <int V, bool across, class Rows = std::make_integer_sequence<int, kMostPixels<A, V>>>
  struct Tiles;
  template <int V, bool across, int... r>
  struct Tiles<V, across, std::integer_sequence<int, r...>> {
    using Function = void (*)(const Call&, const Place*, int64_t, int64_t, int64_t, int64_t, const T*);
    static constexpr Function of_rows[] = {tile<r + 1, V, across>...};
  };

  bool is_gradient_;
  int64_t plane_, pixels_, sources_, results_, weight_pitch_;
  int64_t chunk_, panels_;  // channels that are packed together, panels of a block
};

DWCONV_END_TARGET

#endif  // DWCONV_CPU_POINTWISE_PLANES_H
