// batch_norm and batch_norm_eval: activation((x - mean) scale + bias).
//
// Method: of each slot the mean and the sum of squared deviations from it, merged as Chan, Golub and LeVeque do
// (https://doi.org/10.1080/00031305.1983.10483115); then all numbers once more. What is squared in a slot is the
// deviation from the mean of its first few numbers, which is near enough that nothing cancels: one pass does. A slot's
// mean is kept as that number and an offset from it, so that a large mean loses no digits of the variance.
// Bound: two loads and one store of a vector.
#if defined(DWCONV_CPU_BATCH_NORM_FORWARD_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_BATCH_NORM_FORWARD_H
#undef DWCONV_CPU_BATCH_NORM_FORWARD_H
#else
#define DWCONV_CPU_BATCH_NORM_FORWARD_H
#endif

#include "../simd/activate.h"
#include "channels.h"

DWCONV_BEGIN_TARGET

// The sums of a slot: the offset of its mean from what was taken off, and squared deviations from the mean.
template <class A>
struct Moments {
  static constexpr int kCoefficients = 1;  // what is taken off before squares are summed
  static constexpr bool kFindsCoefficients = true;
  static constexpr bool kReadsGradient = false;

  template <int R>
  DWCONV_INLINE_MEMBER void terms(const Vec<A> (&x)[R], const Vec<A> (&)[R], const Vec<A> (&near)[R][1],
                                  Vec<A> (&first)[R], Vec<A> (&second)[R]) const {
    DWCONV_UNROLL
    for (int r = 0; r < R; ++r) {
      first[r] = x[r] - near[r][0];
      second[r] = first[r] * first[r];
    }
  }
  static DWCONV_INLINE_MEMBER void finish(Vec<A>& first, Vec<A>& second, A count) {
    const Vec<A> offset = first / count;
    second = second - first * offset;
    second = second < A(0) ? Vec<A>{} : second;  // NaN stays
    first = offset;
  }
  // Those of two parts of one slot.
  static DWCONV_INLINE_MEMBER void merge(double& count, double& mean, double& squares, double other_count,
                                         double other_mean, double other_squares) {
    const double total = count + other_count, difference = other_mean - mean;
    squares += other_squares + difference * difference * (count * other_count / total);
    mean = (count * mean + other_count * other_mean) / total;
    count = total;
  }
};

template <class T, template <class> class Walk>
class BatchNormForward {
 public:
  using A = Acc<T>;

  BatchNormForward(Operation operation, const Shape& s)
      : of_batch_(operation == Operation::batch_norm),
        walk_(s),
        numbers_(s.C, kRows, of_batch_ ? walk_.slots() : 0),
        count_(double(s.N * s.H * s.W)) {}

  static const char* supports(Operation, const Shape&) { return nullptr; }

  int64_t workspace_bytes() const { return numbers_.bytes(); }

  int64_t sum_items() const { return of_batch_ ? walk_.sum_items() : 0; }
  void sum(const Buffers& buffers, int64_t begin, int64_t end) const {
    walk_.sum(buffers, numbers_, Moments<A>(), begin, end);
  }

  int64_t channel_items() const { return numbers_.items(); }
  void find_coefficients(const Buffers& buffers, int64_t begin, int64_t end) const {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t first = item * L;
      if (of_batch_) merge(buffers, first);
      for (int64_t c = first; c < std::min(first + L, numbers_.channels()); ++c) {
        const A variance = static_cast<const A*>(buffers.variance)[c];
        numbers_.row(buffers, kMean)[c] = static_cast<const A*>(buffers.mean)[c];
        numbers_.row(buffers, kScale)[c] = channel_scale<A>(buffers, variance, c);
        numbers_.row(buffers, kBias)[c] = channel_bias<A>(buffers, c);
      }
    }
  }

  int64_t map_items() const { return walk_.map_items(); }
  void map(const Buffers& buffers, int64_t begin, int64_t end) const {
    walk_.map(buffers, numbers_, Normalised{buffers.activation}, begin, end);
  }

  static constexpr Stage<BatchNormForward> stages[] = {
      {&BatchNormForward::sum_items, &BatchNormForward::sum},
      {&BatchNormForward::channel_items, &BatchNormForward::find_coefficients},
      {&BatchNormForward::map_items, &BatchNormForward::map}};

 private:
  static constexpr int L = kLanes<A>, kRows = 3;

  struct Normalised {
    static constexpr int kCoefficients = kRows;
    static constexpr bool kReadsGradient = false;
    Activation activation;

    template <int R>
    DWCONV_INLINE_MEMBER void apply(Vec<A> (&x)[R], const Vec<A> (&)[R], const Vec<A> (&of_channel)[kRows]) const {
      normalise<R, 0, A, kRows>(x, &of_channel);
      activate<A, R>(x, activation);
    }
  };

  // Mean and variance of a vector of channels. In f64, where squares of differences of means lose nothing either.
  void merge(const Buffers& buffers, int64_t c) const {
    const Mask<A> mask = lanes<A>(0, numbers_.channels() - c);
    // Means are counted from what the first slot took off, which is near all of them.
    const Wide<A> zero(load(numbers_.near(buffers, 0) + c, mask));
    const auto mean_of = [&](int64_t slot) {
      Wide<A> mean(load(numbers_.first(buffers, slot) + c, mask));
      mean += Wide<A>(load(numbers_.near(buffers, slot) + c, mask)).minus(zero);
      return mean;
    };
    Wide<A> mean, squares;
    for (int64_t slot = 0; slot < numbers_.slots(); ++slot) mean += mean_of(slot).times(double(walk_.count(slot)));
    for (Vec<double>& part : mean.part) part /= count_;
    for (int64_t slot = 0; slot < numbers_.slots(); ++slot) {
      squares += Wide<A>(load(numbers_.second(buffers, slot) + c, mask));
      squares += mean_of(slot).square_of_difference(mean).times(double(walk_.count(slot)));
    }
    mean += zero;
    for (int i = mask.lo(); i < mask.hi(); ++i) {
      static_cast<A*>(buffers.mean)[c + i] = A(mean.lane(i));
      static_cast<A*>(buffers.variance)[c + i] = A(squares.lane(i) / count_);
    }
  }

  bool of_batch_;  // or mean and variance are given
  Walk<T> walk_;
  ChannelNumbers<A> numbers_;
  double count_;
};

DWCONV_END_TARGET

#endif  // DWCONV_CPU_BATCH_NORM_FORWARD_H
