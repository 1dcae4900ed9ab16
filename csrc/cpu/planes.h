// Between NCHW planes and pixels of one vector of channels: the transposition that lets the NHWC kernels run on blocks
// of a contiguous tensor. log2(L) shuffles for L values.

template <class T>
struct Planes {
  using A = Acc<std::remove_const_t<T>>;
  static constexpr int L = kLanes<A>;

  T* first;
  int64_t channels;  // of the tensor
  int64_t pitch;     // elements of a plane
  int64_t M;         // lanes that each channel is repeated in

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
    T* planes[L];
    const int64_t present = begin(n, vector, planes);
    if (M == 1 && present == L && count >= L) return whole_to_pixels(planes[0] + offset, count, pixels);
    for (int64_t i = 0; i < count; i += L) {
      const Mask<A> mask = lanes<A>(0, count - i);
      Vec<A> rows[L];
      for (int64_t l = 0; l < L; ++l) {
        rows[l] = l < present ? load(planes[l] + offset + i, mask) : Vec<A>{};
      }
      transpose_lanes<A>(rows);
      for (int l = 0; l < mask.hi; ++l) store(pixels + (i + l) * L, rows[l]);
    }
  }

  // The way back, for whole planes.
  void from_pixels(int64_t n, int64_t vector, const A* pixels) const {
    T* planes[L];
    const int64_t present = begin(n, vector, planes);
    for (int64_t i = 0; i < pitch; i += L) {
      const Mask<A> mask = lanes<A>(0, pitch - i);
      Vec<A> rows[L];
      for (int l = 0; l < L; ++l) rows[l] = l < mask.hi ? load(pixels + (i + l) * L) : Vec<A>{};
      transpose_lanes<A>(rows);
      for (int64_t l = 0; l < present; ++l) store(planes[l] + i, rows[l], mask);
    }
  }

 private:
  // The same where every lane has a plane, and there are pixels for a vector: the last ones twice, rather than masked.
  void whole_to_pixels(const T* plane, int64_t count, A* pixels) const {
    for (int64_t i = 0; i < count; i += L) {
      const int64_t at = std::min(i, count - L);
      const T* p = plane + at;
      Vec<A> rows[L];
      DWCONV_UNROLL
      for (int l = 0; l < L; ++l, p += pitch) rows[l] = load(p);
      transpose_lanes<A>(rows);
      DWCONV_UNROLL
      for (int l = 0; l < L; ++l) store(pixels + (at + l) * L, rows[l]);
    }
  }
};
