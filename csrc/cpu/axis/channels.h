// What the NHWC kernels share: channels cut into vectors, and vectors into blocks that keep a block's taps in L1.
#if defined(DWCONV_CPU_AXIS_CHANNELS_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_AXIS_CHANNELS_H
#undef DWCONV_CPU_AXIS_CHANNELS_H
#else
#define DWCONV_CPU_AXIS_CHANNELS_H
#endif

#include "tile.h"

DWCONV_BEGIN_TARGET

template <class A>
struct Channels {
  static constexpr int L = kLanes<A>;

  int64_t count;    // channels
  int64_t vectors;  // vectors that cover them; the last may be partial
  int64_t block;    // vectors in a block

  Channels(int64_t count_, int64_t taps) : count(count_), vectors(ceil_div(count_, L)) {
    constexpr int64_t kBlockBytes = 16384;
    block =
        std::clamp<int64_t>(kBlockBytes / (kVecBytes * std::max<int64_t>(taps, 1)), 1, std::max<int64_t>(vectors, 1));
  }

  int64_t pitch() const { return vectors * L; }  // channels of a row of whole vectors
  int64_t blocks() const { return ceil_div(vectors, block); }
  int64_t begin(int64_t b) const { return b * block; }
  int64_t end(int64_t b) const { return std::min(vectors, (b + 1) * block); }
  DWCONV_INLINE_MEMBER Mask<A> mask(int64_t vector) const { return lanes<A>(0, count - vector * L); }
};

// For output channels first, first + 1, ...: which of the input channels from first / M on feeds each.
template <class A>
DWCONV_INLINE Ints<A> feeding_lanes(int64_t first, int64_t M) {
  const int64_t phase = first % M;
  if (M >= kLanes<A>) return -(iota<A>() >= int(std::min<int64_t>(M - phase, kLanes<A>)));  // two channels at the most
  // Exact: both sides are small, and the half keeps the quotient away from whole numbers.
  const Vec<A> lane = __builtin_convertvector(iota<A>(), Vec<A>) + (A(phase) + A(0.5));
  return __builtin_convertvector(lane / A(M), Ints<A>);
}

// The source of NHWC pixels for the channels of one vector: `channel` is the first of the side that has more of them.
template <class T, Lanes kind>
DWCONV_INLINE Source<T, kind> pixel_source(const T* pixel, int64_t pitch, int64_t channel, Mask<Acc<T>> mask,
                                           int64_t M) {
  using A = Acc<T>;
  if constexpr (kind != Lanes::repeated) return {pixel + channel, pitch, mask, M, Ints<A>{}};
  const int64_t fed = (channel % M + mask.hi() - 1) / M + 1;
  return {pixel + channel / M, pitch, lanes<A>(0, fed), 1, feeding_lanes<A>(channel, M)};
}

DWCONV_END_TARGET

#endif  // DWCONV_CPU_AXIS_CHANNELS_H
