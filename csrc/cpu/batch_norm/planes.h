// The walk of BatchNorm over contiguous images (NCHW): a vector runs along a plane, and a slot is the plane of an image. A
// few planes go together, so that their sums overlap and one vector takes what is left of all of them.
#if defined(DWCONV_CPU_BATCH_NORM_PLANES_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_BATCH_NORM_PLANES_H
#undef DWCONV_CPU_BATCH_NORM_PLANES_H
#else
#define DWCONV_CPU_BATCH_NORM_PLANES_H
#endif

#include "../simd/fold.h"
#include "channels.h"

DWCONV_BEGIN_TARGET

template <class T>
class Planes {
 public:
  using A = Acc<T>;
  static constexpr int L = kLanes<A>;

  explicit Planes(const Shape& s) : channels_(s.C), planes_(s.N * s.C), pixels_(s.H * s.W), images_(s.N) {}

  int64_t slots() const { return images_; }
  int64_t count(int64_t) const { return pixels_; }

  // An item is a group of planes.
  int64_t sum_items() const { return ceil_div(planes_, kTogether); }

  template <class Terms>
  void sum(const Buffers& buffers, const ChannelNumbers<A>& numbers, const Terms& terms, int64_t begin,
           int64_t end) const {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t first = item * kTogether;
      if (first + kTogether <= planes_) {
        sum_planes<kTogether>(buffers, numbers, terms, first);
      } else {
        for (int64_t plane = first; plane < planes_; ++plane) sum_planes<1>(buffers, numbers, terms, plane);
      }
    }
  }

  // An item is a plane.
  int64_t map_items() const { return pixels_ > 0 ? planes_ : 0; }

  template <class Map>
  void map(const Buffers& buffers, const ChannelNumbers<A>& numbers, const Map& map, int64_t begin, int64_t end) const {
    for (int64_t plane = begin; plane < end; ++plane) map_plane(buffers, numbers, map, plane);
  }

 private:
  static constexpr int kTogether = std::min(L, 4);  // planes that are summed, vectors of a plane that are mapped
  static constexpr int64_t kChunk = 64 * L;         // numbers of which sums are kept in A
  static constexpr int64_t kNear = 8 * L;           // numbers whose mean is near that of the chunk

  template <int R, class Terms>
  void sum_planes(const Buffers& buffers, const ChannelNumbers<A>& numbers, const Terms& terms, int64_t plane) const {
    constexpr int K = Terms::kCoefficients;
    const T* input = static_cast<const T*>(buffers.input) + plane * pixels_;
    const T* gradient = static_cast<const T*>(buffers.grad_output) + (Terms::kReadsGradient ? plane * pixels_ : 0);
    Vec<A> coefficients[R][K];
    if constexpr (!Terms::kFindsCoefficients) {
      DWCONV_UNROLL
      for (int r = 0; r < R; ++r) {
        DWCONV_UNROLL
        for (int k = 0; k < K; ++k) coefficients[r][k] = broadcast<A>(numbers.row(buffers, k)[(plane + r) % channels_]);
      }
    }
    double counts[R] = {}, firsts[R] = {}, seconds[R] = {};
    A near_first[R] = {};  // what the first chunk took off, from which offsets are counted
    for (int64_t begin = 0; begin < pixels_; begin += kChunk) {
      const int64_t end = std::min(pixels_, begin + kChunk);
      Vec<A> near = {};
      if constexpr (Terms::kFindsCoefficients) {
        const int64_t few = std::min(end, begin + kNear);
        Vec<A> sums[R] = {}, spreads[R];
        for_vectors(begin, few, [&](int64_t i, auto... mask) __attribute__((always_inline)) {
          DWCONV_UNROLL
          for (int r = 0; r < R; ++r) sums[r] += load(input + r * pixels_ + i, mask...);
        });
        near = fold<A, R>(sums) / A(few - begin);
        spread<A, R>(near, spreads);
        DWCONV_UNROLL
        for (int r = 0; r < R; ++r) coefficients[r][0] = spreads[r];
      }
      Vec<A> first[R] = {}, second[R] = {};
      for_vectors(begin, end, [&](int64_t i, auto... mask) __attribute__((always_inline)) {
        Vec<A> x[R], g[R], a[R], b[R];
        DWCONV_UNROLL
        for (int r = 0; r < R; ++r) {
          x[r] = load(input + r * pixels_ + i, mask...);
          if constexpr (Terms::kReadsGradient) g[r] = load(gradient + r * pixels_ + i, mask...);
        }
        terms.terms(x, g, coefficients, a, b);
        DWCONV_UNROLL
        for (int r = 0; r < R; ++r) {
          if constexpr (sizeof...(mask) > 0) a[r] = keep<A>(a[r], mask...), b[r] = keep<A>(b[r], mask...);
          first[r] += a[r], second[r] += b[r];
        }
      });
      Vec<A> folded_first = fold<A, R>(first), folded_second = fold<A, R>(second);
      Terms::finish(folded_first, folded_second, A(end - begin));
      A of_first[R], of_second[R], of_near[R];
      unfold<A, R>(folded_first, of_first), unfold<A, R>(folded_second, of_second), unfold<A, R>(near, of_near);
      for (int r = 0; r < R; ++r) {
        if (begin == 0) {
          counts[r] = double(end), firsts[r] = of_first[r], seconds[r] = of_second[r], near_first[r] = of_near[r];
        } else {
          const double first_of_chunk = double(of_first[r]) + (double(of_near[r]) - double(near_first[r]));
          Terms::merge(counts[r], firsts[r], seconds[r], double(end - begin), first_of_chunk, of_second[r]);
        }
      }
    }
    for (int r = 0; r < R; ++r) {
      const int64_t image = (plane + r) / channels_, c = (plane + r) % channels_;
      numbers.first(buffers, image)[c] = A(firsts[r]), numbers.second(buffers, image)[c] = A(seconds[r]);
      if constexpr (Terms::kFindsCoefficients) numbers.near(buffers, image)[c] = near_first[r];
    }
  }

  template <class Map>
  void map_plane(const Buffers& buffers, const ChannelNumbers<A>& numbers, const Map& map, int64_t plane) const {
    constexpr int K = Map::kCoefficients;
    const T* input = static_cast<const T*>(buffers.input) + plane * pixels_;
    const T* gradient = static_cast<const T*>(buffers.grad_output) + (Map::kReadsGradient ? plane * pixels_ : 0);
    T* result = static_cast<T*>(buffers.result) + plane * pixels_;
    Vec<A> coefficients[K];
    DWCONV_UNROLL
    for (int k = 0; k < K; ++k) coefficients[k] = broadcast<A>(numbers.row(buffers, k)[plane % channels_]);
    int64_t i = 0;
    for (; i + kTogether * L <= pixels_; i += kTogether * L) {
      Vec<A> x[kTogether], g[kTogether];
      DWCONV_UNROLL
      for (int r = 0; r < kTogether; ++r) {
        x[r] = load(input + i + r * L);
        if constexpr (Map::kReadsGradient) g[r] = load(gradient + i + r * L);
      }
      map.template apply<kTogether>(x, g, coefficients);
      DWCONV_UNROLL
      for (int r = 0; r < kTogether; ++r) store(result + i + r * L, x[r]);
    }
    for_vectors(i, pixels_, [&](int64_t at, auto... mask) __attribute__((always_inline)) {
      Vec<A> x[1] = {load(input + at, mask...)}, g[1];
      if constexpr (Map::kReadsGradient) g[0] = load(gradient + at, mask...);
      map.template apply<1>(x, g, coefficients);
      store(result + at, x[0], mask...);
    });
  }

  // Calls each(place) for every whole vector of [begin, end), and each(place, mask) for what is left.
  template <class Each>
  static DWCONV_INLINE_MEMBER void for_vectors(int64_t begin, int64_t end, Each each) {
    int64_t i = begin;
    for (; i + L <= end; i += L) each(i);
    if (i < end) each(i, lanes<A>(0, end - i));
  }

  int64_t channels_, planes_, pixels_, images_;
};

DWCONV_END_TARGET

#endif  // DWCONV_CPU_BATCH_NORM_PLANES_H
