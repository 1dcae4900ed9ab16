// Between NCHW planes and pixels of one vector of channels: the transposition that lets the NHWC kernels run on blocks
// of a contiguous tensor. log2(L) shuffles for L values. With 4 lanes:
//
//   planes a0 a1 a2 a3 ..    pixels a0 b0 c0 d0
//          b0 b1 b2 b3 ..           a1 b1 c1 d1
//          c0 c1 c2 c3 ..           a2 b2 c2 d2
//          d0 d1 d2 d3 ..           a3 b3 c3 d3
#if defined(DWCONV_CPU_AXIS_PLANES_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_AXIS_PLANES_H
#undef DWCONV_CPU_AXIS_PLANES_H
#else
#define DWCONV_CPU_AXIS_PLANES_H
#endif

#include "../simd/lanes.h"

DWCONV_BEGIN_TARGET

template <class T>
struct Planes {
  using A = Acc<std::remove_const_t<T>>;
  static constexpr int L = kLanes<A>;

  T* first;
  int64_t count;      // planes of an image
  int64_t image;      // elements from an image to the next
  int64_t pitch;      // elements from a plane to the next
  int64_t M = 1;      // lanes that each plane is repeated in
  int64_t ahead = 0;  // elements that memory is fetched ahead, where a plane has a vector

  // pixels[i][l] = element offset + i of the plane for lane l of the vector, for `elements` of them; zero past the last
  // plane.
  void to_pixels(int64_t n, int64_t vector, int64_t offset, int64_t elements, A* pixels) const {
    to_places(n, vector, offset, elements, pixels, [](int64_t i) { return i * L; });
  }

  // The same, with pixel i at place(i).
  template <class Place>
  void to_places(int64_t n, int64_t vector, int64_t offset, int64_t elements, A* pixels, const Place& place) const {
    T* planes[L];
    const int64_t present = begin(n, vector, planes);
    if (M == 1 && present == L && elements >= L) {
      return whole_to_places(planes[0] + offset, elements, pixels, place);
    }
    for (int64_t i = 0; i < elements; i += L) {
      const Mask<A> mask = lanes<A>(0, elements - i);
      Vec<A> rows[L];
      for (int64_t l = 0; l < L; ++l) {
        rows[l] = l < present ? load(planes[l] + offset + i, mask) : Vec<A>{};
      }
      transpose_lanes<A>(rows);
      for (int l = 0; l < mask.hi(); ++l) store(pixels + place(i + l), rows[l]);
    }
  }

  // The way back: elements [offset, offset + elements) of the planes. Pixels are `across` elements apart.
  void from_pixels(int64_t n, int64_t vector, int64_t offset, int64_t elements, const A* pixels, int64_t across) const {
    T* planes[L];
    const int64_t present = begin(n, vector, planes);
    if (M == 1 && present == L && elements >= L) {
      return whole_from_pixels(planes[0] + offset, elements, pixels, across);
    }
    for (int64_t i = 0; i < elements; i += L) {
      const Mask<A> mask = lanes<A>(0, elements - i);
      Vec<A> rows[L];
      for (int l = 0; l < L; ++l) rows[l] = l < mask.hi() ? load(pixels + (i + l) * across) : Vec<A>{};
      transpose_lanes<A>(rows);
      for (int64_t l = 0; l < present; ++l) store(planes[l] + offset + i, rows[l], mask);
    }
  }

 private:
  // Where the planes for the lanes of a vector begin. Returns how many lanes have one.
  int64_t begin(int64_t n, int64_t vector, T* (&planes)[L]) const {
    const int64_t present = std::min<int64_t>(L, count * M - vector * L);
    T* plane = first + n * image + vector * L / M * pitch;
    for (int64_t l = 0, phase = vector * L % M; l < present; ++l) {
      planes[l] = plane;
      if (++phase == M) phase = 0, plane += pitch;
    }
    return present;
  }

  // The same where every lane has a plane, and there are pixels for a vector: the last ones twice, rather than masked.
  template <class Place>
  void whole_to_places(const T* plane, int64_t elements, A* pixels, const Place& place) const {
    for (int64_t i = 0; i < elements; i += L) {
      const int64_t at = std::min(i, elements - L);
      const T* p = plane + at;
      Vec<A> rows[L];
      DWCONV_UNROLL
      for (int l = 0; l < L; ++l, p += pitch) {
        rows[l] = load(p);
        if (ahead) __builtin_prefetch(p + ahead);
      }
      transpose_lanes<A>(rows);
      DWCONV_UNROLL
      for (int l = 0; l < L; ++l) store(pixels + place(at + l), rows[l]);
    }
  }
  void whole_from_pixels(T* plane, int64_t elements, const A* pixels, int64_t across) const {
    for (int64_t i = 0; i < elements; i += L) {
      const int64_t at = std::min(i, elements - L);
      const A* from = pixels + at * across;
      Vec<A> rows[L];
      DWCONV_UNROLL
      for (int l = 0; l < L; ++l, from += across) rows[l] = load(from);
      transpose_lanes<A>(rows);
      T* p = plane + at;
      DWCONV_UNROLL
      for (int l = 0; l < L; ++l, p += pitch) {
        store(p, rows[l]);
        if (ahead) __builtin_prefetch(p + ahead, 1);
      }
    }
  }
};

DWCONV_END_TARGET

#endif  // DWCONV_CPU_AXIS_PLANES_H
