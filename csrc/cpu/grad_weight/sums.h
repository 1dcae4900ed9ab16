// What every grad_weight kernel does with its sums. Lanes are channels. A chunk is a part of the work whose sums are kept
// apart: accumulators add up at most about kChain products, a chunk's total at most about kAccumulators of these, and a
// last stage adds the chunks in order in f64, rounds once and lays the taps out by channel. So the error of a sum is that
// of two chains of some hundred additions, however large the problem; in f64, which no wider type can add up, that of one
// shorter chain.
#if defined(DWCONV_CPU_GRAD_WEIGHT_SUMS_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_GRAD_WEIGHT_SUMS_H
#undef DWCONV_CPU_GRAD_WEIGHT_SUMS_H
#else
#define DWCONV_CPU_GRAD_WEIGHT_SUMS_H
#endif

#include "../../kernel.h"
#include "../simd/lanes.h"

DWCONV_BEGIN_TARGET

template <class A>
constexpr int64_t kChain = sizeof(A) == 8 ? 64 : 512;
constexpr int64_t kAccumulators = 512;

// A total of accumulators. In f64 it keeps what each addition rounds away (Knuth's TwoSum).
template <class A>
struct Total {
  Vec<A> sum;
  DWCONV_INLINE_MEMBER void operator+=(Vec<A> term) { sum += term; }
  DWCONV_INLINE_MEMBER Vec<A> value() const { return sum; }
};

template <>
struct Total<double> {
  Vec<double> sum, lost;

  DWCONV_INLINE_MEMBER void operator+=(Vec<double> term) {
    const Vec<double> next = sum + term, added = next - sum;
    lost += (sum - (next - added)) + (term - added);
    sum = next;
  }
  // Of a sum that is infinite nothing is lost.
  DWCONV_INLINE_MEMBER Vec<double> value() const {
    return sum + (Vec<double>)((Ints<double>)lost & (Ints<double>)(lost - lost == 0.0));
  }
};

// The values of `count` totals, in their place.
template <class A>
DWCONV_INLINE A* values_of(Total<A>* totals, int64_t count) {
  A* const to = reinterpret_cast<A*>(totals);
  if constexpr (sizeof(Total<A>) > sizeof(Vec<A>)) {
    for (int64_t i = 0; i < count; ++i) store(to + i * kLanes<A>, totals[i].value());
  }
  return to;
}

// How sums lie in the workspace: [chunk][vector of channels][tap, bias last][lane].
template <class A>
struct SumsShape {
  int64_t chunks, vectors, taps;
  int64_t bytes() const { return chunks * vectors * (taps + 1) * kVecBytes; }
};

template <class A>
struct ChunkSums : SumsShape<A> {
  static constexpr int L = kLanes<A>;
  using SumsShape<A>::chunks, SumsShape<A>::vectors, SumsShape<A>::taps;

  A* first;

  ChunkSums(const SumsShape<A>& shape, void* workspace) : SumsShape<A>(shape), first(static_cast<A*>(workspace)) {}

  A* at(int64_t chunk, int64_t vector) const { return first + (chunk * vectors + vector) * (taps + 1) * L; }

  // The filters and biases of one vector of `count` channels.
  template <class T>
  void finish(int64_t vector, int64_t count, const Buffers& buffers) const {
    finish(vector, count, static_cast<T*>(buffers.result), static_cast<T*>(buffers.grad_bias));
  }

  template <class T>
  void finish(int64_t vector, int64_t count, T* grad_weight, T* grad_bias) const {
    const Mask<A> channels = lanes<A>(0, count - vector * L);
    T* filters = grad_weight + vector * L * taps;
    for (int64_t tap = 0; tap < taps; tap += L) {
      const Mask<A> mask = lanes<A>(0, taps - tap);
      Vec<A> rows[L];
      DWCONV_UNROLL
      for (int i = 0; i < L; ++i) rows[i] = i < mask.hi() ? total(vector, tap + i) : Vec<A>{};
      transpose_lanes<A>(rows);
      DWCONV_UNROLL
      for (int l = 0; l < L; ++l) {
        if (l < channels.hi()) store(filters + l * taps + tap, rows[l], mask);
      }
    }
    if (grad_bias) store(grad_bias + vector * L, total(vector, taps), channels);
  }

 private:
  DWCONV_INLINE_MEMBER Vec<A> total(int64_t vector, int64_t tap) const {
    return chunks == 1 ? load(at(0, vector) + tap * L) : total_of_many(vector, tap);
  }

  __attribute__((noinline)) Vec<A> total_of_many(int64_t vector, int64_t tap) const {
    double sums[L] = {};
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      const A* part = at(chunk, vector) + tap * L;
      for (int i = 0; i < L; ++i) sums[i] += part[i];
    }
    A rounded[L];
    for (int i = 0; i < L; ++i) rounded[i] = A(sums[i]);
    return load(rounded);
  }
};

DWCONV_END_TARGET

#endif  // DWCONV_CPU_GRAD_WEIGHT_SUMS_H
