// The walk of BatchNorm over channels last (NHWC): a vector runs over channels, and a slot is a block of rows, pixels of
// all images counted on. So each lane is a channel, and nothing is added across lanes.
#if defined(DWCONV_CPU_BATCH_NORM_ROWS_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_BATCH_NORM_ROWS_H
#undef DWCONV_CPU_BATCH_NORM_ROWS_H
#else
#define DWCONV_CPU_BATCH_NORM_ROWS_H
#endif

#include "channels.h"

DWCONV_BEGIN_TARGET

template <class T>
class Rows {
 public:
  using A = Acc<T>;
  static constexpr int L = kLanes<A>;

  explicit Rows(const Shape& s) : channels_(s.C), rows_(s.N * s.H * s.W), blocks_(ceil_div(channels_, kVectors * L)) {}

  int64_t slots() const { return ceil_div(rows_, kSlot); }
  int64_t count(int64_t slot) const { return std::min(kSlot, rows_ - slot * kSlot); }

  // An item is a slot of a block of channels.
  int64_t sum_items() const { return slots() * blocks_; }

  template <class Terms>
  void sum(const Buffers& buffers, const ChannelNumbers<A>& numbers, const Terms& terms, int64_t begin,
           int64_t end) const {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t slot = item / blocks_, c = item % blocks_ * kVectors * L;
      const int64_t vectors = std::min(kVectors, ceil_div(channels_ - c, L));
      const Mask<A> last = lanes<A>(0, channels_ - c - (vectors - 1) * L);
      if (vectors == kVectors && last.full()) {
        sum_vectors<kVectors, true>(buffers, numbers, terms, slot, c, last);
      } else {
        for (int64_t v = 0; v < vectors - 1; ++v) {
          sum_vectors<1, true>(buffers, numbers, terms, slot, c + v * L, last);
        }
        sum_vectors<1, false>(buffers, numbers, terms, slot, c + (vectors - 1) * L, last);
      }
    }
  }

  // An item is a block of rows.
  int64_t map_items() const { return channels_ > 0 ? ceil_div(rows_, kBlock) : 0; }

  template <class Map>
  void map(const Buffers& buffers, const ChannelNumbers<A>& numbers, const Map& map, int64_t begin, int64_t end) const {
    const int64_t last = std::min(rows_, end * kBlock);
    int64_t row = begin * kBlock;
    for (; row + kTogether <= last; row += kTogether) map_rows<kTogether>(buffers, numbers, map, row);
    for (; row < last; ++row) map_rows<1>(buffers, numbers, map, row);
  }

 private:
  static constexpr int64_t kVectors = kVecBytes == 64 ? 4 : 2;  // what the registers hold with their coefficients
  static constexpr int64_t kSlot = 128, kRun = 16;              // terms of a sum, of which so many follow each other
  static constexpr int64_t kNear = 8;                           // rows whose mean is near that of the slot
  static constexpr int kTogether = 4;
  static constexpr int64_t kBlock = 4 * kTogether;

  template <int V, bool whole>
  static DWCONV_INLINE_MEMBER void load_row(Vec<A> (&x)[V], const T* row, const Mask<A>& last) {
    DWCONV_UNROLL
    for (int v = 0; v < V - !whole; ++v) x[v] = load(row + v * L);
    if constexpr (!whole) x[V - 1] = load(row + (V - 1) * L, last);
  }

  template <int V, bool whole, class Terms>
  void sum_vectors(const Buffers& buffers, const ChannelNumbers<A>& numbers, const Terms& terms, int64_t slot,
                   int64_t c, const Mask<A>& last) const {
    constexpr int K = Terms::kCoefficients;
    const int64_t first_row = slot * kSlot, rows = count(slot);
    const T* input = static_cast<const T*>(buffers.input) + first_row * channels_ + c;
    const T* gradient =
        static_cast<const T*>(buffers.grad_output) + (Terms::kReadsGradient ? first_row * channels_ + c : 0);
    Vec<A> coefficients[V][K];
    if constexpr (Terms::kFindsCoefficients) {
      Vec<A> near[V] = {}, x[V];
      const int64_t few = std::min(kNear, rows);
      for (int64_t row = 0; row < few; ++row) {
        load_row<V, whole>(x, input + row * channels_, last);
        DWCONV_UNROLL
        for (int v = 0; v < V; ++v) near[v] += x[v];
      }
      DWCONV_UNROLL
      for (int v = 0; v < V; ++v) coefficients[v][0] = near[v] / A(few);
    } else {
      DWCONV_UNROLL
      for (int k = 0; k < K; ++k) {
        const A* row = numbers.row(buffers, k) + c;
        DWCONV_UNROLL
        for (int v = 0; v < V; ++v)
          coefficients[v][k] = whole || v < V - 1 ? load(row + v * L) : load(row + v * L, last);
      }
    }
    Vec<A> first[V] = {}, second[V] = {};
    for (int64_t row = 0; row < rows;) {
      Vec<A> run_first[V] = {}, run_second[V] = {};
      for (const int64_t end = std::min(rows, row + kRun); row < end; ++row) {
        Vec<A> x[V], g[V], a[V], b[V];
        load_row<V, whole>(x, input + row * channels_, last);
        if constexpr (Terms::kReadsGradient) load_row<V, whole>(g, gradient + row * channels_, last);
        terms.terms(x, g, coefficients, a, b);
        DWCONV_UNROLL
        for (int v = 0; v < V; ++v) run_first[v] += a[v], run_second[v] += b[v];
      }
      DWCONV_UNROLL
      for (int v = 0; v < V; ++v) first[v] += run_first[v], second[v] += run_second[v];
    }
    DWCONV_UNROLL
    for (int v = 0; v < V; ++v) {
      Terms::finish(first[v], second[v], A(rows));
      const Mask<A> mask = whole || v < V - 1 ? lanes<A>(0, L) : last;
      store(numbers.first(buffers, slot) + c + v * L, first[v], mask);
      store(numbers.second(buffers, slot) + c + v * L, second[v], mask);
      if constexpr (Terms::kFindsCoefficients) {
        store(numbers.near(buffers, slot) + c + v * L, coefficients[v][0], mask);
      }
    }
  }

  template <int R, class Map>
  void map_rows(const Buffers& buffers, const ChannelNumbers<A>& numbers, const Map& map, int64_t row) const {
    constexpr int K = Map::kCoefficients;
    const T* input = static_cast<const T*>(buffers.input) + row * channels_;
    const T* gradient = static_cast<const T*>(buffers.grad_output) + (Map::kReadsGradient ? row * channels_ : 0);
    T* result = static_cast<T*>(buffers.result) + row * channels_;
    const auto vector = [&](int64_t c, auto... mask) __attribute__((always_inline)) {
      Vec<A> x[R], g[R], coefficients[K];
      DWCONV_UNROLL
      for (int k = 0; k < K; ++k) coefficients[k] = load(numbers.row(buffers, k) + c, mask...);
      DWCONV_UNROLL
      for (int r = 0; r < R; ++r) {
        x[r] = load(input + r * channels_ + c, mask...);
        if constexpr (Map::kReadsGradient) g[r] = load(gradient + r * channels_ + c, mask...);
      }
      map.template apply<R>(x, g, coefficients);
      DWCONV_UNROLL
      for (int r = 0; r < R; ++r) store(result + r * channels_ + c, x[r], mask...);
    };
    const int64_t whole = channels_ / L * L;
    for (int64_t c = 0; c < whole; c += L) vector(c);
    if (whole < channels_) vector(whole, lanes<A>(0, channels_ - whole));
  }

  int64_t channels_, rows_;
  int64_t blocks_;  // of channels
};

DWCONV_END_TARGET

#endif  // DWCONV_CPU_BATCH_NORM_ROWS_H
