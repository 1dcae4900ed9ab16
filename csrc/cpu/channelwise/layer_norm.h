// layer_norm, channels last (NHWC): (x - mean) / sqrt(variance + epsilon) over the channels of each pixel.
//
// Method: a vector runs over channels, and a few pixels go together, so that sums of different pixels overlap and one
// vector takes all their square roots. Three passes over the channels, the second and the third from L1: the mean, the
// deviations and their squares, the results. With the sum of the deviations a mean that was rounded does no harm:
//
//   d = x - mean    shift = sum(d) / C    variance = sum(d^2) / C - shift^2    result = (d - shift) / sqrt(variance + epsilon)
//
// Bound: three loads and one store of a vector.
#if defined(DWCONV_CPU_CHANNELWISE_LAYER_NORM_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_CHANNELWISE_LAYER_NORM_H
#undef DWCONV_CPU_CHANNELWISE_LAYER_NORM_H
#else
#define DWCONV_CPU_CHANNELWISE_LAYER_NORM_H
#endif

#include <cmath>

#include "../axis/tile.h"
#include "../kernel_list.h"
#include "../simd/activate.h"
#include "../simd/fold.h"

DWCONV_BEGIN_TARGET

// The unmasked forms of AVX-512 make GCC 12 warn in its own header.
#if DWCONV_VEC_BYTES == 64
DWCONV_INLINE Vec<float> square_root(Vec<float> x) { return (Vec<float>)_mm512_maskz_sqrt_ps(0xffff, (__m512)x); }
DWCONV_INLINE Vec<double> square_root(Vec<double> x) { return (Vec<double>)_mm512_maskz_sqrt_pd(0xff, (__m512d)x); }
#elif DWCONV_VEC_BYTES == 32
DWCONV_INLINE Vec<float> square_root(Vec<float> x) { return (Vec<float>)_mm256_sqrt_ps((__m256)x); }
DWCONV_INLINE Vec<double> square_root(Vec<double> x) { return (Vec<double>)_mm256_sqrt_pd((__m256d)x); }
#elif defined(__x86_64__)
DWCONV_INLINE Vec<float> square_root(Vec<float> x) { return (Vec<float>)_mm_sqrt_ps((__m128)x); }
DWCONV_INLINE Vec<double> square_root(Vec<double> x) { return (Vec<double>)_mm_sqrt_pd((__m128d)x); }
#elif defined(__aarch64__)
DWCONV_INLINE Vec<float> square_root(Vec<float> x) { return (Vec<float>)vsqrtq_f32((float32x4_t)x); }
DWCONV_INLINE Vec<double> square_root(Vec<double> x) { return (Vec<double>)vsqrtq_f64((float64x2_t)x); }
#else
template <class V>
DWCONV_INLINE V square_root(V x) {
  for (size_t i = 0; i < sizeof x / sizeof x[0]; ++i) x[i] = std::sqrt(x[i]);
  return x;
}
#endif

template <class T>
class LayerNorm {
 public:
  using A = Acc<T>;
  static constexpr int L = kLanes<A>;

  LayerNorm(Operation, const Shape& s)
      : channels_(s.C), pixels_(s.N * s.H * s.W), whole_(s.C / L * L), tail_(lanes<A>(0, s.C - whole_)) {}

  static const char* supports(Operation, const Shape&) { return nullptr; }

  int64_t workspace_bytes() const { return 0; }

  // An item is a block of pixels.
  int64_t items() const { return ceil_div(pixels_, kTogether); }

  void run(const Buffers& buffers, int64_t begin, int64_t end) const {
    const int64_t last = std::min(pixels_, end * kTogether);
    int64_t pixel = begin * kTogether;
    for (; pixel + kTogether <= last; pixel += kTogether) normalise<kTogether>(buffers, pixel);
    for (; pixel < last; ++pixel) normalise<1>(buffers, pixel);
  }

  static constexpr Stage<LayerNorm> stages[] = {{&LayerNorm::items, &LayerNorm::run}};

 private:
  static constexpr int kTogether = std::min(L, 4);
  // Channels whose terms are added up one after the other, in each lane of a vector.
  static constexpr int64_t kChunk = 32 * L;

  // What is summed over the whole vectors of the channels of R pixels: x itself, or its deviation from a mean and the
  // square of that.
  template <int R>
  struct Sums {
    Vec<A> first[R], second[R];

    DWCONV_INLINE_MEMBER Sums() {
      DWCONV_UNROLL
      for (int r = 0; r < R; ++r) first[r] = second[r] = Vec<A>{};
    }
    DWCONV_INLINE_MEMBER void operator+=(const Sums& other) {
      DWCONV_UNROLL
      for (int r = 0; r < R; ++r) first[r] += other.first[r], second[r] += other.second[r];
    }
  };

  // The sums of chunks, added up: add(sums, begin, end) adds some channels to sums.
  template <int R, class Add>
  DWCONV_INLINE_MEMBER Sums<R> in_chunks(Add add) const {
    Sums<R> total;
    add(total, 0, std::min(whole_, kChunk));
    for (int64_t begin = kChunk; __builtin_expect(begin < whole_, 0); begin += kChunk) {
      Sums<R> sums;
      add(sums, begin, std::min(whole_, begin + kChunk));
      total += sums;
    }
    return total;
  }

  template <int R>
  DWCONV_INLINE_MEMBER void normalise(const Buffers& buffers, int64_t pixel) const {
    const T* input = static_cast<const T*>(buffers.input) + pixel * channels_;
    T* result = static_cast<T*>(buffers.result) + pixel * channels_;
    const A share = 1 / A(channels_);
    const bool partial = whole_ < channels_;

    Sums<R> of_values = in_chunks<R>([&](Sums<R>& sums, int64_t begin, int64_t end) {
      int64_t c = begin;
      for (; c + 2 * L <= end; c += 2 * L) {  // two chains for each pixel
        DWCONV_UNROLL
        for (int r = 0; r < R; ++r) {
          sums.first[r] += load(input + r * channels_ + c);
          sums.second[r] += load(input + r * channels_ + c + L);
        }
      }
      if (c == end) return;
      DWCONV_UNROLL
      for (int r = 0; r < R; ++r) sums.first[r] += load(input + r * channels_ + c);
    });
    if (partial) {
      DWCONV_UNROLL
      for (int r = 0; r < R; ++r) of_values.second[r] += load(input + r * channels_ + whole_, tail_);
    }
    DWCONV_UNROLL
    for (int r = 0; r < R; ++r) of_values.first[r] += of_values.second[r];
    Vec<A> mean[R];
    spread<A, R>(fold<A, R>(of_values.first) * share, mean);

    Sums<R> of_deviations = in_chunks<R>([&](Sums<R>& sums, int64_t begin, int64_t end) {
      for (int64_t c = begin; c < end; c += L) {
        DWCONV_UNROLL
        for (int r = 0; r < R; ++r) {
          const Vec<A> d = load(input + r * channels_ + c) - mean[r];
          sums.first[r] += d;
          sums.second[r] += d * d;
        }
      }
    });
    if (partial) {
      DWCONV_UNROLL
      for (int r = 0; r < R; ++r) {
        const Vec<A> d = keep<A>(load(input + r * channels_ + whole_, tail_) - mean[r], tail_);
        of_deviations.first[r] += d;
        of_deviations.second[r] += d * d;
      }
    }
    const Vec<A> shift = fold<A, R>(of_deviations.first) * share;
    const Vec<A> variance = at_least<A>(fold<A, R>(of_deviations.second) * share - shift * shift, 0);
    const Vec<A> inverse = A(1) / square_root(variance + A(buffers.epsilon));
    Vec<A> factor[R], offset[R];
    spread<A, R>(inverse, factor);
    spread<A, R>(shift, offset);

    for (int64_t c = 0; c < whole_; c += L) {
      DWCONV_UNROLL
      for (int r = 0; r < R; ++r) {
        const Vec<A> d = load(input + r * channels_ + c) - mean[r];
        store(result + r * channels_ + c, (d - offset[r]) * factor[r]);
      }
    }
    if (partial) {
      DWCONV_UNROLL
      for (int r = 0; r < R; ++r) {
        const Vec<A> d = load(input + r * channels_ + whole_, tail_) - mean[r];
        store(result + r * channels_ + whole_, (d - offset[r]) * factor[r], tail_);
      }
    }
  }

  int64_t channels_, pixels_;
  int64_t whole_;  // channels of whole vectors
  Mask<A> tail_;
};

DWCONV_END_TARGET

#endif  // DWCONV_CPU_CHANNELWISE_LAYER_NORM_H
