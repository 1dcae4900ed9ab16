// Where pixels.h gets its pixels from: one vector of channels of a tensor of either layout.
#if defined(DWCONV_CPU_GRAD_WEIGHT_READERS_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_GRAD_WEIGHT_READERS_H
#undef DWCONV_CPU_GRAD_WEIGHT_READERS_H
#else
#define DWCONV_CPU_GRAD_WEIGHT_READERS_H
#endif

#include "../axis/channels.h"
#include "../axis/planes.h"

DWCONV_BEGIN_TARGET

// How a reader hands out pixels of one vector of channels.
template <class A>
struct View {
  const A* first;
  int64_t row, col;  // pitches
};

// Contiguous planes, transposed.
template <class T>
struct PlaneReader {
  using A = Acc<T>;
  static constexpr int L = kLanes<A>;

  Planes<const T> planes;
  int64_t width;

  PlaneReader(const void* p, int64_t channels, int64_t height, int64_t width_, int64_t M, bool)
      : planes{static_cast<const T*>(p), channels, channels * height * width_, height * width_, M}, width(width_) {}

  // The pixels asked for, in the scratch space if they cannot be read where they lie.
  View<A> view(int64_t n, int64_t vector, int64_t row, int64_t rows, int64_t col, int64_t cols, A* scratch) const {
    if (cols == width) {
      planes.to_pixels(n, vector, row * width, rows * width, scratch);
    } else {
      for (int64_t i = 0; i < rows; ++i) {
        planes.to_pixels(n, vector, (row + i) * width + col, cols, scratch + i * cols * L);
      }
    }
    return {scratch, cols * L, L};
  }
};

// Pixels of all channels: in place, or copied.
template <class T>
struct PixelReader {
  using A = Acc<T>;
  static constexpr int L = kLanes<A>;

  const T* first;
  int64_t channels, height, width, M;
  bool spread, far;

  PixelReader(const void* p, int64_t channels_, int64_t height_, int64_t width_, int64_t M_, bool far_)
      : first(static_cast<const T*>(p)), channels(channels_), height(height_), width(width_), M(M_), far(far_) {
    // Measured: a copy pays unless the pixels of a vector spread over at least a quarter of the sets of L1.
    const int64_t pitch = channels * int64_t(sizeof(T));
    spread = pitch % 64 == 0 && std::gcd<int64_t>(pitch, 4096) <= 256;
  }

  // Whether whole vectors are read where they lie.
  bool in_place() const { return std::is_same_v<T, A> && spread && !far && M == 1; }

  View<A> view(int64_t n, int64_t vector, int64_t row, int64_t rows, int64_t col, int64_t cols, A* scratch) const {
    const T* from = first + ((n * height + row) * width + col) * channels;
    if constexpr (std::is_same_v<T, A>) {
      if (in_place() && (vector + 1) * L <= channels) {
        return {from + vector * L, width * channels, channels};
      }
    }
    const Mask<A> mask = lanes<A>(0, channels * M - vector * L);
    for (int64_t i = 0; i < rows; ++i, from += width * channels) {
      if (M > 1) {
        repeated(from, vector, mask, cols, scratch + i * cols * L);
      } else {
        copy(from + vector * L, mask, cols, scratch + i * cols * L);
      }
    }
    return {scratch, cols * L, L};
  }

 private:
  void copy(const T* from, Mask<A> mask, int64_t cols, A* to) const {
    if (mask.full() && far) {
      for (int64_t j = 0; j < cols; ++j, from += channels, to += L) {
        __builtin_prefetch(from + L, 0, 2);  // the next vector's turn is next
        store(to, load(from));
      }
    } else if (mask.full()) {
      for (int64_t j = 0; j < cols; ++j, from += channels, to += L) store(to, load(from));
    } else {
      for (int64_t j = 0; j < cols; ++j, from += channels, to += L) store(to, load(from, mask));
    }
  }

  void repeated(const T* from, int64_t vector, Mask<A> mask, int64_t cols, A* to) const {
    const auto source = pixel_source<T, Lanes::repeated>(from, channels, vector * L, mask, M);
    for (int64_t j = 0; j < cols; ++j, to += L) {
      store(to, permute<A>(load(source.p + j * channels, source.mask), source.index));
    }
  }
};

DWCONV_END_TARGET

#endif  // DWCONV_CPU_GRAD_WEIGHT_READERS_H
