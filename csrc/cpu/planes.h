// Between NCHW planes and pixels of one vector of channels: the transposition that lets the NHWC kernels run on blocks
// of a contiguous tensor. log2(L) shuffles for L values.

template <class T>
struct Planes {
  using A = Acc<std::remove_const_t<T>>;
  static constexpr int L = kLanes<A>;

  T* first;
  int64_t channels;   // of the tensor
  int64_t pitch;      // elements of a plane
  int64_t M;          // lanes that each channel is repeated in
  int64_t ahead = 0;  // elements that memory is fetched ahead, where a plane has a vector

  // Where the planes for the lanes of a vector begin, as far as there are lanes.
  int64_t begin(int64_t n, int64_t vector, T* (&planes)[L]) const {
    const int64_t present = std::min<int64_t>(L, channels * M - vector * L);
    T* plane = first + (n * channels + vector * L / M) * pitch;
    for (int64_t l = 0, phase = vector * L % M; l < present; ++l) {
      planes[l] = plane;
      if (++phase == M) phase = 0, plane += pitch;
    }
    return present;
  }

  // pixels[i][l] = element offset + i of the plane for lane l of the vector, for `count` elements; zero past the last.
  void to_pixels(int64_t n, int64_t vector, int64_t offset, int64_t count, A* pixels) const {
    to_places(n, vector, offset, count, pixels, [](int64_t i) { return i * L; });
  }

  // The same, with pixel i at place(i).
  template <class Place>
  void to_places(int64_t n, int64_t vector, int64_t offset, int64_t count, A* pixels, const Place& place) const {
    T* planes[L];
    const int64_t present = begin(n, vector, planes);
    if (M == 1 && present == L && count >= L) return whole_to_places(planes[0] + offset, count, pixels, place);
    for (int64_t i = 0; i < count; i += L) {
      const Mask<A> mask = lanes<A>(0, count - i);
      Vec<A> rows[L];
      for (int64_t l = 0; l < L; ++l) {
        rows[l] = l < present ? load(planes[l] + offset + i, mask) : Vec<A>{};
      }
      transpose_lanes<A>(rows);
      for (int l = 0; l < mask.hi; ++l) store(pixels + place(i + l), rows[l]);
    }
  }

  // The way back, for whole planes; pixels are `across` elements apart.
  void from_pixels(int64_t n, int64_t vector, const A* pixels, int64_t across) const {
    T* planes[L];
    const int64_t present = begin(n, vector, planes);
    if (M == 1 && present == L && pitch >= L) return whole_from_pixels(planes[0], pixels, across);
    for (int64_t i = 0; i < pitch; i += L) {
      const Mask<A> mask = lanes<A>(0, pitch - i);
      Vec<A> rows[L];
      for (int l = 0; l < L; ++l) rows[l] = l < mask.hi ? load(pixels + (i + l) * across) : Vec<A>{};
      transpose_lanes<A>(rows);
      for (int64_t l = 0; l < present; ++l) store(planes[l] + i, rows[l], mask);
    }
  }

 private:
  // The same where every lane has a plane, and there are pixels for a vector: the last ones twice, rather than masked.
  template <class Place>
  void whole_to_places(const T* plane, int64_t count, A* pixels, const Place& place) const {
    for (int64_t i = 0; i < count; i += L) {
      const int64_t at = std::min(i, count - L);
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
  void whole_from_pixels(T* plane, const A* pixels, int64_t across) const {
    for (int64_t i = 0; i < pitch; i += L) {
      const int64_t at = std::min(i, pitch - L);
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
