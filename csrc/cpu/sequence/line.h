// What the kernels of this folder share: a 1-D convolution with a stride of 1 as one line, and its taps.
#if defined(DWCONV_CPU_SEQUENCE_LINE_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_SEQUENCE_LINE_H
#undef DWCONV_CPU_SEQUENCE_LINE_H
#else
#define DWCONV_CPU_SEQUENCE_LINE_H
#endif

#include "../axis/tile.h"
#include "../kernel_list.h"
#include "../simd/activate.h"

DWCONV_BEGIN_TARGET

// result[l] = sum over k of tap(k) * source[l + k * dilation - before], where grad_input takes the taps in reverse.
struct Line {
  static constexpr int64_t kLargeBytes = int64_t(1) << 25;  // a result that leaves the caches

  int64_t images, channels, source, results;
  int64_t width, dilation, before;
  bool reversed;

  Line(Operation operation, const Shape& s)
      : images(s.N),
        channels(s.C),
        source(s.W),
        results(s.OW),
        width(s.KW),
        dilation(s.dilation_w),
        before(s.pad_left) {
    reversed = operation == Operation::grad_input;
    if (reversed) {
      std::swap(source, results);
      before = reach() - before;
    }
  }

  static const char* refusal(Operation, const Shape& s) {
    if (s.H != 1 || s.OH != 1 || s.KH != 1 || s.pad_top != 0) return "the height is not 1";
    if (s.M != 1) return "the channel multiplier is not 1";
    if (s.stride_w != 1) return "there is a stride";
    if (s.KW > Sequence::kMostTaps) return "there are more than 64 taps";
    return nullptr;
  }

  // The distance between the first and the last tap.
  int64_t reach() const { return (width - 1) * dilation; }
  int64_t tap(int64_t k) const { return reversed ? width - 1 - k : k; }
  bool is_large(int64_t element_bytes) const { return images * channels * results * element_bytes >= kLargeBytes; }
};

DWCONV_INLINE bool is_line(const void* p) { return reinterpret_cast<uintptr_t>(p) % 64 == 0; }

// run(width) with a width of 1 to `most` as a compile-time constant, and 0 for more.
template <int most, class Run, int width = 1>
DWCONV_INLINE void with_width(int64_t wanted, Run run, std::integral_constant<int, width> = {}) {
  if constexpr (width > most) {
    run(std::integral_constant<int, 0>{});
  } else {
    if (wanted == width) return run(std::integral_constant<int, width>{});
    with_width<most>(wanted, run, std::integral_constant<int, width + 1>{});
  }
}

// Widths whose loops are unrolled: models with longer filters, or in f64, do not wait for one layer.
template <class T>
constexpr int kUnrolled = sizeof(T) == 8 ? 0 : 8;
template <class T>
constexpr int kUnrolledBackward = sizeof(T) == 8 ? 0 : 4;

// Of sums that are stored as T.
template <class T, int R>
DWCONV_INLINE void apply(Vec<Acc<T>> (&sums)[R], Activation activation) {
  if constexpr (sizeof(Acc<T>) == 4) {
    if (activation == Activation::silu) {
      DWCONV_UNROLL
      for (int r = 0; r < R; ++r) sums[r] *= sigmoid(sums[r]);
      return;
    }
  }
  activate<T, R>(sums, activation);
}

// An operand that is stored in the accumulator's type where it is wide.
template <class T>
DWCONV_INLINE Acc<T> element(const void* p, bool wide, int64_t index) {
  return wide ? static_cast<const Acc<T>*>(p)[index] : Acc<T>(to_acc(static_cast<const T*>(p)[index]));
}
template <class T>
DWCONV_INLINE Acc<T> bias_of(const Buffers& buffers, int64_t channel) {
  const bool wide = buffers.sequence && buffers.sequence->wide_bias;
  return buffers.bias ? element<T>(buffers.bias, wide, channel) : Acc<T>(0);
}
template <class T>
DWCONV_INLINE Acc<T> weight_of(const Line& line, const Buffers& buffers, int64_t channel, int64_t k) {
  const bool wide = buffers.sequence && buffers.sequence->wide_weight;
  return element<T>(buffers.weight, wide, channel * line.width + line.tap(k));
}

// A channel's taps: in registers up to eight, else in memory.
template <class T, int K>
class RowWeights {
  using A = Acc<T>;

 public:
  DWCONV_INLINE_MEMBER RowWeights(const Line& line, const Buffers& buffers, int64_t channel) {
    if constexpr (K > 0) {
      DWCONV_UNROLL
      for (int k = 0; k < K; ++k) taps_[k] = broadcast<A>(weight_of<T>(line, buffers, channel, k));
    } else {
      for (int64_t k = 0; k < line.width; ++k) taps_[k] = weight_of<T>(line, buffers, channel, k);
    }
  }
  DWCONV_INLINE_MEMBER Vec<A> operator[](int64_t k) const {
    if constexpr (K > 0) {
      return taps_[k];
    } else {
      return broadcast<A>(taps_[k]);
    }
  }

 private:
  std::conditional_t<(K > 0), Vec<A>, A> taps_[K > 0 ? K : Sequence::kMostTaps];
};

// The reach of the results at `reach`, in lanes as wide as those of A.
template <class A>
DWCONV_INLINE Ints<A> load_reach(const int32_t* reach) {
  if constexpr (sizeof(A) == 4) return load_bytes<Ints<A>>(reach);
  Ints<A> values = {};
  for (int i = 0; i < kLanes<A>; ++i) values[i] = reach[i];
  return values;
}

template <class A>
DWCONV_INLINE bool any(Ints<A> flags) {
  typedef int64_t Words __attribute__((vector_size(kVecBytes)));
  const Words words = (Words)flags;
  int64_t all = 0;
  for (int i = 0; i < kVecBytes / 8; ++i) all |= words[i];
  return all != 0;
}

// The lanes of the mask that have their flag, too.
template <class A>
DWCONV_INLINE Mask<A> both(Mask<A> mask, Ints<A> flags) {
#if DWCONV_VEC_BYTES == 64
  if constexpr (sizeof(A) == 4) {
    return Mask<A>::of(mask.bits & uint32_t(_mm512_test_epi32_mask((__m512i)flags, (__m512i)flags)));
  } else {
    return Mask<A>::of(mask.bits & uint32_t(_mm512_test_epi64_mask((__m512i)flags, (__m512i)flags)));
  }
#else
  mask.bits &= flags;
  return mask;
#endif
}

// What a row of a channel is read through: the source itself, and what stands before its first position.
template <class T>
class RowTaps {
  using A = Acc<T>;
  static constexpr int L = kLanes<A>;

 public:
  const T* row;
  const T* states;  // the positions before the first, up to `row`'s position 0; or null
  const int32_t* reach;

  DWCONV_INLINE_MEMBER RowTaps(const Line& line, const Buffers& buffers, int64_t image, int64_t channel)
      : states(nullptr), reach(nullptr), line_(line) {
    const void* source = line.reversed ? buffers.grad_output : buffers.input;
    const Sequence* sequence = buffers.sequence;
    if (!sequence) {
      row = static_cast<const T*>(source) + (image * line.channels + channel) * line.source;
      return;
    }
    row = static_cast<const T*>(source) + image * sequence->input.image + channel * sequence->input.step;
    if (sequence->states) {
      states = static_cast<const T*>(sequence->states) + (image * line.channels + channel) * line.reach();
    }
    if (sequence->reach) reach = sequence->reach + image * line.source;
  }

  // Results before it have no tap past the end of the row.
  int64_t inner_end() const { return line_.source - line_.reach() + line_.before; }

  // Whether the results of some vectors look at all of their taps.
  DWCONV_INLINE_MEMBER bool all_reach(int64_t at, int vectors) const {
    if (!reach) return true;
    for (int r = 0; r < vectors; ++r) {
      if (any<A>(load_reach<A>(reach + at + r * L) < int32_t(line_.reach()))) return false;
    }
    return true;
  }

  // Tap k of the vector of results at `at`, and the lanes in which there is one. Other lanes are zero.
  __attribute__((noinline)) Vec<A> at(int64_t at, int64_t k, Mask<A>& inside) const {
    const int64_t from = at + k * line_.dilation - line_.before;
    Vec<A> x;
    if (from >= 0 && from + L <= line_.source) {
      inside = Mask<A>(0, L);
      x = load(row + from);
    } else {
      inside = lanes<A>(-from, line_.source - from);
      x = load(row + from, inside);
      if (states && from < 0) {
        const int64_t before = line_.reach();
        const Mask<A> earlier = lanes<A>(-from - before, -from);
        x += load(states + before + from, earlier);
        inside = lanes<A>(-from - before, line_.source - from);
      }
    }
    if (reach) {
      inside = both<A>(inside, load_reach<A>(reach + at) >= int32_t((line_.width - 1 - k) * line_.dilation));
      x = keep<A>(x, inside);
    }
    return x;
  }

  // Results that are to be zero are.
  DWCONV_INLINE_MEMBER Vec<A> keep_wanted(Vec<A> results, int64_t at) const {
    return reach ? (load_reach<A>(reach + at) >= 0 ? results : Vec<A>{}) : results;
  }

 private:
  const Line& line_;
};

DWCONV_END_TARGET

#endif  // DWCONV_CPU_SEQUENCE_LINE_H
