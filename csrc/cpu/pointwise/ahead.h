// What a tile fetches from memory while it multiplies: lines that lie too far apart for the hardware to see a pattern.
#if defined(DWCONV_CPU_POINTWISE_AHEAD_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_POINTWISE_AHEAD_H
#undef DWCONV_CPU_POINTWISE_AHEAD_H
#else
#define DWCONV_CPU_POINTWISE_AHEAD_H
#endif

#include "../simd/lanes.h"

DWCONV_BEGIN_TARGET

// A line with each step, `pitch` elements after the one before, to L1 or to L2. It may lie outside the tensor: no fetch
// fails.
template <class T, int level>
struct LinesAhead {
  const T* at;
  int64_t pitch;

  template <int R>
  DWCONV_INLINE_MEMBER void fetch() {
    __builtin_prefetch(at, 0, level == 1 ? 3 : 2);
    advance(at, pitch);
  }
};

// Both.
template <class First, class Second>
struct BothAhead {
  First first;
  Second second;

  template <int R>
  DWCONV_INLINE_MEMBER void fetch() {
    first.template fetch<R>();
    second.template fetch<R>();
  }
};

DWCONV_END_TARGET

#endif  // DWCONV_CPU_POINTWISE_AHEAD_H
