// What BatchNorm knows of each channel, and the sums that this comes from.
//
// The numbers of a channel are cut into slots by the shape alone: blocks of rows (NHWC), planes (NCHW). A slot's two sums
// are kept in the accumulator's type, and those of all slots are added up in f64, in the order of the slots. So bits do
// not depend on who computed which slot.
#if defined(DWCONV_CPU_BATCH_NORM_CHANNELS_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_BATCH_NORM_CHANNELS_H
#undef DWCONV_CPU_BATCH_NORM_CHANNELS_H
#else
#define DWCONV_CPU_BATCH_NORM_CHANNELS_H
#endif

#include <cmath>

#include "../axis/lattice.h"
#include "../kernel_list.h"
#include "../simd/lanes.h"

DWCONV_BEGIN_TARGET

// Two vectors of f64 with the lanes of one of A, or one where A is f64.
template <class A>
struct Wide {
  static constexpr int kParts = int(sizeof(double) / sizeof(A));
  Vec<double> part[kParts] = {};

  Wide() = default;
  explicit DWCONV_INLINE_MEMBER Wide(Vec<A> value) {
    if constexpr (kParts == 1) {
      part[0] = value;
    } else {
      typedef float Half __attribute__((vector_size(kVecBytes / 2)));
      Half half[2];
      __builtin_memcpy(half, &value, sizeof value);
      part[0] = __builtin_convertvector(half[0], Vec<double>), part[1] = __builtin_convertvector(half[1], Vec<double>);
    }
  }
  DWCONV_INLINE_MEMBER void operator+=(const Wide& other) {
    for (int i = 0; i < kParts; ++i) part[i] += other.part[i];
  }
  DWCONV_INLINE_MEMBER Wide times(double factor) const {
    Wide product;
    for (int i = 0; i < kParts; ++i) product.part[i] = part[i] * factor;
    return product;
  }
  DWCONV_INLINE_MEMBER Wide minus(const Wide& other) const {
    Wide difference;
    for (int i = 0; i < kParts; ++i) difference.part[i] = part[i] - other.part[i];
    return difference;
  }
  DWCONV_INLINE_MEMBER Wide square_of_difference(const Wide& other) const {
    Wide square;
    for (int i = 0; i < kParts; ++i) square.part[i] = (part[i] - other.part[i]) * (part[i] - other.part[i]);
    return square;
  }
  DWCONV_INLINE_MEMBER double lane(int i) const { return part[i / kLanes<double>][i % kLanes<double>]; }
};

// Numbers of each channel in the workspace: rows of C of them, then three rows of each slot.
template <class A>
class ChannelNumbers {
 public:
  static constexpr int L = kLanes<A>;

  ChannelNumbers(int64_t channels, int rows, int64_t slots) : channels_(channels), rows_(rows), slots_(slots) {}

  int64_t bytes() const { return (rows_ + 3 * slots_) * channels_ * int64_t(sizeof(A)); }
  int64_t channels() const { return channels_; }
  int64_t slots() const { return slots_; }

  A* row(const Buffers& buffers, int64_t row) const { return static_cast<A*>(buffers.workspace) + row * channels_; }
  A* first(const Buffers& buffers, int64_t slot) const { return row(buffers, rows_ + 3 * slot); }
  A* second(const Buffers& buffers, int64_t slot) const { return row(buffers, rows_ + 3 * slot + 1); }
  // What was taken off before the sums, if anything was.
  A* near(const Buffers& buffers, int64_t slot) const { return row(buffers, rows_ + 3 * slot + 2); }

  // An item of what is done for each channel is a vector of them.
  int64_t items() const { return ceil_div(channels_, L); }

 private:
  int64_t channels_, rows_, slots_;
};

// What a number is multiplied with: in one place, so that backward finds the activation's argument to the last bit.
template <class A>
DWCONV_INLINE A channel_scale(const Buffers& buffers, A variance, int64_t c) {
  const double weight = buffers.weight ? double(static_cast<const A*>(buffers.weight)[c]) : 1.0;
  return A(weight / std::sqrt(double(variance) + buffers.epsilon));
}

template <class A>
DWCONV_INLINE A channel_bias(const Buffers& buffers, int64_t c) {
  return buffers.bias ? static_cast<const A*>(buffers.bias)[c] : A(0);
}

// The rows of the workspace that both directions have.
enum ChannelRow : int { kMean, kScale, kBias };

// The arguments of the activation of R vectors: coefficients[r * step] has mean, scale and bias of vector r.
template <int R, int step, class A, int K>
DWCONV_INLINE void normalise(Vec<A> (&x)[R], const Vec<A> (*coefficients)[K]) {
  DWCONV_UNROLL
  for (int r = 0; r < R; ++r) {
    const Vec<A>(&of)[K] = coefficients[r * step];
    x[r] = (x[r] - of[kMean]) * of[kScale] + of[kBias];
  }
}

DWCONV_END_TARGET

#endif  // DWCONV_CPU_BATCH_NORM_CHANNELS_H
