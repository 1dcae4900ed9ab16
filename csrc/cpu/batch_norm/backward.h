// batch_norm_backward and batch_norm_eval_backward. With g the gradient before the activation, d = x - mean, n the number
// of values of a channel and r = 1 / sqrt(variance + epsilon):
//
//   grad_bias   = sum(g)
//   grad_weight = sum(g d) r
//   grad_input  = scale (g - sum(g) / n - d sum(g d) r^2 / n)       of the batch's mean and variance
//               = scale g                                          where they are constants
//
// Method: both sums of each slot, merged in f64, then all numbers once more. The argument of the activation is computed
// from the input in both passes, by the operations of forward.
// Bound: four loads and one store of a vector.
#if defined(DWCONV_CPU_BATCH_NORM_BACKWARD_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_BATCH_NORM_BACKWARD_H
#undef DWCONV_CPU_BATCH_NORM_BACKWARD_H
#else
#define DWCONV_CPU_BATCH_NORM_BACKWARD_H
#endif

#include "../simd/derivative.h"
#include "channels.h"

DWCONV_BEGIN_TARGET

template <class T, template <class> class Walk>
class BatchNormBackward {
 public:
  using A = Acc<T>;

  BatchNormBackward(Operation operation, const Shape& s)
      : of_batch_(operation == Operation::batch_norm_backward),
        walk_(s),
        numbers_(s.C, kRows, walk_.slots()),
        count_(double(s.N * s.H * s.W)) {}

  static const char* supports(Operation, const Shape&) { return nullptr; }

  int64_t workspace_bytes() const { return numbers_.bytes(); }

  int64_t channel_items() const { return numbers_.items(); }
  void find_coefficients(const Buffers& buffers, int64_t begin, int64_t end) const {
    for (int64_t c = begin * L; c < std::min(end * L, numbers_.channels()); ++c) {
      const A variance = static_cast<const A*>(buffers.variance)[c];
      numbers_.row(buffers, kMean)[c] = static_cast<const A*>(buffers.mean)[c];
      numbers_.row(buffers, kScale)[c] = channel_scale<A>(buffers, variance, c);
      numbers_.row(buffers, kBias)[c] = channel_bias<A>(buffers, c);
    }
  }

  int64_t sum_items() const { return walk_.sum_items(); }
  void sum(const Buffers& buffers, int64_t begin, int64_t end) const {
    if (wants_sums(buffers)) walk_.sum(buffers, numbers_, Gradients{buffers.activation}, begin, end);
  }

  void merge(const Buffers& buffers, int64_t begin, int64_t end) const {
    if (!wants_sums(buffers)) return;
    for (int64_t item = begin; item < end; ++item) {
      const int64_t first = item * L;
      const Mask<A> mask = lanes<A>(0, numbers_.channels() - first);
      Wide<A> sums, products;
      for (int64_t slot = 0; slot < numbers_.slots(); ++slot) {
        sums += Wide<A>(load(numbers_.first(buffers, slot) + first, mask));
        products += Wide<A>(load(numbers_.second(buffers, slot) + first, mask));
      }
      for (int i = mask.lo(); i < mask.hi(); ++i) finish(buffers, first + i, sums.lane(i), products.lane(i));
    }
  }

  int64_t map_items() const { return walk_.map_items(); }
  void map(const Buffers& buffers, int64_t begin, int64_t end) const {
    if (!buffers.result) return;
    if (of_batch_) {
      walk_.map(buffers, numbers_, GradInput<true>{buffers.activation}, begin, end);
    } else {
      walk_.map(buffers, numbers_, GradInput<false>{buffers.activation}, begin, end);
    }
  }

  static constexpr Stage<BatchNormBackward> stages[] = {
      {&BatchNormBackward::channel_items, &BatchNormBackward::find_coefficients},
      {&BatchNormBackward::sum_items, &BatchNormBackward::sum},
      {&BatchNormBackward::channel_items, &BatchNormBackward::merge},
      {&BatchNormBackward::map_items, &BatchNormBackward::map}};

 private:
  // Beside those of ChannelRow: what grad_input adds for each channel, and for each deviation.
  enum Row : int { kConstant = 3, kSlope, kRows };
  static constexpr int L = kLanes<A>;

  bool wants_sums(const Buffers& buffers) const { return of_batch_ || buffers.grad_weight || buffers.grad_bias; }

  // The sums of a slot: sum(g) and sum(g d).
  struct Gradients {
    static constexpr int kCoefficients = 3;
    static constexpr bool kFindsCoefficients = false;
    static constexpr bool kReadsGradient = true;
    Activation activation;

    template <int R>
    DWCONV_INLINE_MEMBER void terms(const Vec<A> (&x)[R], const Vec<A> (&gradients)[R],
                                    const Vec<A> (&of_channel)[R][3], Vec<A> (&first)[R], Vec<A> (&second)[R]) const {
      Vec<A> arguments[R];
      DWCONV_UNROLL
      for (int r = 0; r < R; ++r) arguments[r] = x[r], first[r] = gradients[r];
      normalise<R, 1, A, 3>(arguments, of_channel);
      differentiate<A, R>(first, arguments, activation);
      DWCONV_UNROLL
      for (int r = 0; r < R; ++r) second[r] = first[r] * (x[r] - of_channel[r][kMean]);
    }
    static DWCONV_INLINE_MEMBER void finish(Vec<A>&, Vec<A>&, A) {}
    static DWCONV_INLINE_MEMBER void merge(double& count, double& sum, double& products, double other_count,
                                           double other_sum, double other_products) {
      count += other_count, sum += other_sum, products += other_products;
    }
  };

  template <bool of_batch>
  struct GradInput {
    static constexpr int kCoefficients = of_batch ? int(kRows) : 3;
    static constexpr bool kReadsGradient = true;
    Activation activation;

    template <int R>
    DWCONV_INLINE_MEMBER void apply(Vec<A> (&x)[R], const Vec<A> (&gradients)[R],
                                    const Vec<A> (&of_channel)[kCoefficients]) const {
      Vec<A> arguments[R], before[R];
      DWCONV_UNROLL
      for (int r = 0; r < R; ++r) arguments[r] = x[r], before[r] = gradients[r];
      normalise<R, 0, A, kCoefficients>(arguments, &of_channel);
      differentiate<A, R>(before, arguments, activation);
      DWCONV_UNROLL
      for (int r = 0; r < R; ++r) {
        if constexpr (of_batch) {
          x[r] = before[r] * of_channel[kScale] +
                 ((x[r] - of_channel[kMean]) * of_channel[kSlope] + of_channel[kConstant]);
        } else {
          x[r] = before[r] * of_channel[kScale];
        }
      }
    }
  };

  void finish(const Buffers& buffers, int64_t c, double sum, double products) const {
    const double variance = double(static_cast<const A*>(buffers.variance)[c]) + buffers.epsilon;
    const double scale = double(numbers_.row(buffers, kScale)[c]);
    if (buffers.grad_bias) static_cast<A*>(buffers.grad_bias)[c] = A(sum);
    if (buffers.grad_weight) static_cast<A*>(buffers.grad_weight)[c] = A(products / std::sqrt(variance));
    numbers_.row(buffers, kConstant)[c] = A(-scale * sum / count_);
    numbers_.row(buffers, kSlope)[c] = A(-scale * products / (variance * count_));
  }

  bool of_batch_;  // or mean and variance are constants
  Walk<T> walk_;
  ChannelNumbers<A> numbers_;
  double count_;
};

DWCONV_END_TARGET

#endif  // DWCONV_CPU_BATCH_NORM_BACKWARD_H
