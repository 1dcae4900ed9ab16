// Sums of the lanes of several vectors at once: one vector holds them all, so that what follows is done for all of them.
#if defined(DWCONV_CPU_SIMD_FOLD_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_SIMD_FOLD_H
#undef DWCONV_CPU_SIMD_FOLD_H
#else
#define DWCONV_CPU_SIMD_FOLD_H
#endif

#include "lanes.h"

DWCONV_BEGIN_TARGET

// The lane in which fold leaves the sum of vector r: the bits of r in reverse order. Of 8 lanes, vector 1 is in lane 4.
template <class A>
struct FoldPlaces {
  int lane[kLanes<A>] = {};
  constexpr FoldPlaces() {
    for (int r = 0; r < kLanes<A>; ++r) {
      for (int bit = 1; bit < kLanes<A>; bit *= 2) lane[r] = 2 * lane[r] + (r & bit ? 1 : 0);
    }
  }
};
template <class A>
static constexpr FoldPlaces<A> kFoldPlaces{};

// The sum of all lanes of each of R vectors, no more than a vector has lanes, in the lane of its place.
template <class A, int R>
DWCONV_INLINE Vec<A> fold(const Vec<A> (&sums)[R]) {
  constexpr int L = kLanes<A>;
  Vec<A> folded[L];
  DWCONV_UNROLL
  for (int i = 0; i < L; ++i) folded[i] = i < R ? sums[std::min(i, R - 1)] : Vec<A>{};
  DWCONV_UNROLL
  for (int count = L; count > 1; count /= 2) {
    DWCONV_UNROLL
    for (int i = 0; i < count; i += 2) {
      Vec<A> low, high;
      interleave<A>(folded[i], folded[i + 1], low, high, LaneIndices<A>{});
      folded[i / 2] = low + high;
    }
  }
  return folded[0];
}

// What fold left in the place of vector r, for each r.
template <class A, int R>
DWCONV_INLINE void unfold(Vec<A> folded, A (&values)[R]) {
  A lane[kLanes<A>];
  __builtin_memcpy(lane, &folded, sizeof lane);
  DWCONV_UNROLL
  for (int r = 0; r < R; ++r) values[r] = lane[kFoldPlaces<A>.lane[r]];
}

// The same in all lanes of a vector each.
template <class A, int R>
DWCONV_INLINE void spread(Vec<A> folded, Vec<A> (&vectors)[R]) {
  A values[R];
  unfold<A, R>(folded, values);
  DWCONV_UNROLL
  for (int r = 0; r < R; ++r) vectors[r] = broadcast<A>(values[r]);
}

DWCONV_END_TARGET

#endif  // DWCONV_CPU_SIMD_FOLD_H
