// Four positions of a vector of channels that lie channel after channel: the cache of a decoding step of width four, and
// its taps.
//
//   memory        a0 a1 a2 a3  b0 b1 b2 b3  c0 ...
//   position[1]   a1 b1 c1 ...
#if defined(DWCONV_CPU_SEQUENCE_QUADS_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_SEQUENCE_QUADS_H
#undef DWCONV_CPU_SEQUENCE_QUADS_H
#else
#define DWCONV_CPU_SEQUENCE_QUADS_H
#endif

#include "../simd/lanes.h"

DWCONV_BEGIN_TARGET

// Elements of the accumulator's size: a vector is a position.
template <class T>
struct WholeQuads {
  static constexpr int L = kLanes<T>;
  Vec<T> position[4];

  DWCONV_INLINE_MEMBER explicit WholeQuads(const T* p) {
    const LaneIndices<T> lanes;
    const Vec<T> a = load(p), b = load(p + L), c = load(p + 2 * L), d = load(p + 3 * L);
    const Vec<T> even[2] = {pick_even<T>(a, b, lanes), pick_even<T>(c, d, lanes)};
    const Vec<T> odd[2] = {pick_odd<T>(a, b, lanes), pick_odd<T>(c, d, lanes)};
    position[0] = pick_even<T>(even[0], even[1], lanes), position[2] = pick_odd<T>(even[0], even[1], lanes);
    position[1] = pick_even<T>(odd[0], odd[1], lanes), position[3] = pick_odd<T>(odd[0], odd[1], lanes);
  }
  DWCONV_INLINE_MEMBER Vec<T> at(int k) const { return position[k]; }
  // The oldest position goes, and those at x are the newest.
  DWCONV_INLINE_MEMBER void push(const T* x) {
    for (int k = 0; k < 3; ++k) position[k] = position[k + 1];
    position[3] = load(x);
  }
  DWCONV_INLINE_MEMBER void write(T* p) const {
    const LaneIndices<T> lanes;
    Vec<T> even[2], odd[2], whole[4];
    interleave<T>(position[0], position[2], even[0], even[1], lanes);
    interleave<T>(position[1], position[3], odd[0], odd[1], lanes);
    interleave<T>(even[0], odd[0], whole[0], whole[1], lanes);
    interleave<T>(even[1], odd[1], whole[2], whole[3], lanes);
    for (int k = 0; k < 4; ++k) store(p + k * L, whole[k]);
  }
};

// Elements of 16 bits: a vector is two positions, the earlier one in the lower half of each lane. So they are moved as
// they are, and only computing converts them.
template <class T>
struct HalfQuads {
  static constexpr int L = kLanes<float>;
  Bits32 pair[2];

  DWCONV_INLINE_MEMBER explicit HalfQuads(const T* p) {
    const Vec<float> a = load_bytes<Vec<float>>(p), b = load_bytes<Vec<float>>(p + 2 * L);
    pair[0] = (Bits32)pick_even<float>(a, b, LaneIndices<float>{});
    pair[1] = (Bits32)pick_odd<float>(a, b, LaneIndices<float>{});
  }
  DWCONV_INLINE_MEMBER Vec<float> at(int k) const {
    const Bits32 both = pair[k / 2];
    if constexpr (std::is_same_v<T, bf16>) {
      return (Vec<float>)(k % 2 ? both & 0xffff0000u : both << 16);
    } else {
      return widen(__builtin_convertvector(k % 2 ? both >> 16 : both & 0xffffu, Half16), T{});
    }
  }
  DWCONV_INLINE_MEMBER void push(const T* x) {
    const Bits32 newest = __builtin_convertvector(load_bytes<Half16>(x), Bits32);
    pair[0] = (pair[0] >> 16) | (pair[1] << 16);
    pair[1] = (pair[1] >> 16) | (newest << 16);
  }
  DWCONV_INLINE_MEMBER void write(T* p) const {
    Vec<float> low, high;
    interleave<float>((Vec<float>)pair[0], (Vec<float>)pair[1], low, high, LaneIndices<float>{});
    __builtin_memcpy(p, &low, sizeof low);
    __builtin_memcpy(p + 2 * L, &high, sizeof high);
  }
};
template <class T>
using Quads = std::conditional_t<sizeof(T) == 2, HalfQuads<T>, WholeQuads<T>>;

DWCONV_END_TARGET

#endif  // DWCONV_CPU_SEQUENCE_QUADS_H
