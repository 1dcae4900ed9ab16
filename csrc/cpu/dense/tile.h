// A tile of a dense convolution: R pixels by V panels of 16 output channels, all sums in registers.
//
// Method: a tap of a pixel is broadcast and meets a row of each panel, so V*P loaded vectors (P a panel) and R broadcasts
// serve R*V*P multiply-adds. With R = 3, V = 2 and vectors of 16:
//
//   taps of pixels     rows of panels         sums
//   x0 x1 x2 ...   *   [w w w ... w]  panel 0    [s00] [s01]
//   y0 y1 y2 ...       [w w w ... w]  panel 1    [s10] [s11]
//   z0 z1 z2 ...                                 [s20] [s21]
//
// Pixels of two bytes are widened into a scratch of R rows first, a chunk of taps at a time: that is once for V*16
// multiply-adds. A sum adds its terms in the order of the taps, whatever R, V and the place of the pixel are.
// Bound: FMA.
#if defined(DWCONV_CPU_DENSE_TILE_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_DENSE_TILE_H
#undef DWCONV_CPU_DENSE_TILE_H
#else
#define DWCONV_CPU_DENSE_TILE_H
#endif

#include "../../kernel.h"
#include "../axis/lattice.h"
#include "../simd/activate.h"

DWCONV_BEGIN_TARGET

constexpr int kPanel = 16;

// Vectors of a row of a panel.
template <class A>
constexpr int kPanelVectors = kPanel / kLanes<A>;

// The largest tile: sums, a row of the panels and a broadcast fill the registers.
#if DWCONV_VEC_BYTES == 64 || defined(__aarch64__)
constexpr int kRegisters = 32;
#else
constexpr int kRegisters = 16;
#endif
template <class A>
constexpr int kMostPanels = kVecBytes == 64 && sizeof(A) == 4 ? 3 : 1;
template <class A, int V>
constexpr int kMostPixels = std::clamp((kRegisters - 1) / (V * kPanelVectors<A>)-1, 1,
                                       V == 1   ? 14
                                       : V == 2 ? 12
                                                : 8);

// Taps that lie next to each other, in the input and in a panel.
struct Segments {
  int64_t count, per_row, length;  // count = rows of the filter times per_row
  int64_t row_pitch, pitch;        // from one row of the filter to the next, from one segment of a row to the next
};

// What all tiles of a call share.
template <class T>
struct DenseCall {
  using A = Acc<T>;
  Segments segments;
  int64_t pixel_pitch;  // of the input
  int64_t panel_size;   // elements of a panel
  int64_t outputs;      // channels, and so the pitch of the result
  const A* bias;
  const T* residual;  // laid out as the result
  T* result;
  const T* weight;
  Activation activation;
};

// Rows of panels as the tiles multiply them.
template <class T>
struct PanelRow {
  using A = Acc<T>;
  static constexpr int kTaps = std::is_same_v<T, bf16> ? 2 : 1;  // of a step
  static constexpr int64_t kStep = kTaps * kPanel;               // elements of a panel
  // Vector j of the row of tap e of a step.
  static DWCONV_INLINE_MEMBER Vec<A> load(const T* row, int e, int j) {
    if constexpr (kTaps == 2) {
      const Bits32 pairs = load_bytes<Bits32>(row + 2 * j * kLanes<A>);
      return (Vec<A>)(e == 0 ? pairs << 16 : pairs & 0xffff0000u);
    } else {
      return DWCONV_ISA::load(row + j * kLanes<A>);
    }
  }
};

// A tile's share of the weights that come next, fetched to L2 a little with each step. All at once they would keep what the
// tile itself needs from coming.
template <class T>
struct Ahead {
  const T* next;
  int64_t step;  // elements

  template <int R>
  DWCONV_INLINE_MEMBER void fetch() {
    if (R < 4) return;  // tiles of few pixels wait for their own
    __builtin_prefetch(next, 0, 2);
    advance(next, step);
  }
};

// Weights in the order in which they are read: those of a call, then what is read after it.
template <class T>
class WeightStream {
 public:
  WeightStream(const T* own, int64_t size, const void* next, int64_t next_bytes)
      : own_(own), next_(static_cast<const T*>(next)), size_(size), end_(size + next_bytes / int64_t(sizeof(T))) {}

  // What lies before `read` needs no fetching any more. From here on, `tiles` tiles of `steps` steps fetch the rest.
  void spread(int64_t read, int64_t tiles, int64_t steps) {
    constexpr int64_t kLine = 64 / sizeof(T);
    at_ = std::max(at_, read);
    step_ = std::clamp<int64_t>(ceil_div(end_ - at_, std::max<int64_t>(1, tiles * steps)), 0, kLine);
    share_ = step_ * steps;
  }

  Ahead<T> share() {
    if (at_ >= end_ || step_ == 0) return {own_, 0};
    const Ahead<T> ahead = {at_ < size_ ? own_ + at_ : next_ + (at_ - size_), step_};
    at_ += share_;
    return ahead;
  }

 private:
  const T *own_, *next_;
  int64_t size_, end_;
  int64_t at_ = 0, step_ = 0, share_ = 0;
};

// Where nothing needs fetching.
struct NothingAhead {
  template <int R>
  DWCONV_INLINE_MEMBER void fetch() {}
};

// sums += taps * panels over `steps` steps. Tap k of pixel r is pixels[r*pitch + k]; `across`, it is pixels[k*pitch + r].
template <class T, int R, int V, bool across = false, class Fetch>
DWCONV_INLINE void multiply(const Acc<T>* pixels, int64_t pitch, const T* weight, int64_t panel_size, Fetch& ahead,
                            int64_t steps, Vec<Acc<T>> (&sums)[R * V * kPanelVectors<Acc<T>>]) {
  using A = Acc<T>;
  using Row = PanelRow<T>;
  constexpr int P = kPanelVectors<A>, kGroups = across ? 1 : (R + 3) / 4;
  const A* base[kGroups];  // of four pixels each: x86 adds pitch, 2*pitch and 3*pitch to an address for nothing
  const int64_t pitch3 = 3 * pitch;
  DWCONV_UNROLL
  for (int g = 0; g < kGroups; ++g) base[g] = pixels + 4 * g * pitch;
  for (int64_t step = 0; step < steps; ++step) {
    DWCONV_UNROLL
    for (int e = 0; e < Row::kTaps; ++e) {
      Vec<A> rows[V * P];
      DWCONV_UNROLL
      for (int j = 0; j < V * P; ++j) {
        rows[j] = Row::load(weight + j / P * panel_size, e, j % P);
        if (R > 1) opaque(rows[j]);
      }
      DWCONV_UNROLL
      for (int r = 0; r < R; ++r) {
        const int64_t offset = r % 4 == 3 ? pitch3 : r % 4 * pitch;
        const Vec<A> tap = broadcast<A>(across ? base[0][e * pitch + r] : base[r / 4 % kGroups][offset + e]);
        DWCONV_UNROLL
        for (int j = 0; j < V * P; ++j) sums[r * V * P + j] += tap * rows[j];
      }
    }
    ahead.template fetch<R>();
    advance(weight, Row::kStep);
    DWCONV_UNROLL
    for (int g = 0; g < kGroups; ++g) advance(base[g], across ? Row::kTaps * pitch : Row::kTaps);
  }
}

#if DWCONV_VEC_BYTES == 64
// sum + the products of two pairs of bf16 in each lane, by one instruction, which takes subnormal operands for zero and
// rounds results below 2^-126 to zero. Written out, so that the target stays AVX-512 without BF16.
DWCONV_INLINE void add_pairs(Vec<float>& sum, Vec<float> taps, Vec<float> row) {
  asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(taps), "v"(row));
}

// `multiply` with that instruction, on `count` taps, which may be odd.
template <int R, int V>
DWCONV_INLINE void multiply_pairs(const bf16* pixels, int64_t pitch, const bf16* weight, int64_t panel_size,
                                  Ahead<bf16>& ahead, int64_t count, Vec<float> (&sums)[R * V]) {
  constexpr int kGroups = (R + 3) / 4;
  const bf16* base[kGroups];
  const int64_t pitch3 = 3 * pitch;
  DWCONV_UNROLL
  for (int g = 0; g < kGroups; ++g) base[g] = pixels + 4 * g * pitch;
  const auto step = [&](auto load_pair) __attribute__((always_inline)) {
    Vec<float> rows[V];
    DWCONV_UNROLL
    for (int j = 0; j < V; ++j) {
      rows[j] = load_bytes<Vec<float>>(weight + j * panel_size);
      if (R > 1) opaque(rows[j]);
    }
    DWCONV_UNROLL
    for (int r = 0; r < R; ++r) {
      const Bits32 pair = Bits32{} + load_pair(base[r / 4] + (r % 4 == 3 ? pitch3 : r % 4 * pitch));
      DWCONV_UNROLL
      for (int j = 0; j < V; ++j) add_pairs(sums[r * V + j], (Vec<float>)pair, rows[j]);
    }
    ahead.template fetch<R>();
    advance(weight, 2 * kPanel);
    DWCONV_UNROLL
    for (int g = 0; g < kGroups; ++g) advance(base[g], 2);
  };
  for (int64_t k = 0; k + 2 <= count; k += 2) step([](const bf16* p) { return load_bytes<uint32_t>(p); });
  if (count % 2) step([](const bf16* p) { return uint32_t(p->bits); });
}
#endif

// Taps [0, count) of R pixels to scratch, as many as whole steps have: zeros past the last.
template <class T, int R, int64_t kChunk>
DWCONV_INLINE void widen_pixels(const T* pixels, int64_t pitch, int64_t count, Acc<T>* scratch) {
  using A = Acc<T>;
  constexpr int L = kLanes<A>;
  for (int r = 0; r < R; ++r) {
    const T* from = pixels + r * pitch;
    A* to = scratch + r * kChunk;
    int64_t k = 0;
    for (; k + L <= count; k += L) store(to + k, load(from + k));
    if (k < count) store(to + k, load(from + k, lanes<A>(0, count - k)));  // kChunk is whole vectors
    if (count % L == 0 && count < kChunk) to[count] = 0;
  }
}

// Vector j at p, of which the first `whole` are.
template <class T, int whole>
DWCONV_INLINE Vec<Acc<T>> load_part(const T* p, int j, const Mask<Acc<T>>* masks) {
  p += j * kLanes<Acc<T>>;
  return j < whole ? load(p) : load(p, masks[j - whole]);
}

// With `pairs`, T is bf16 and the machine has AVX-512 BF16.
template <class T, int R, int V, bool pairs>
static void tile(const DenseCall<T>& call, const T* pixels, int64_t panel, int64_t pixel, Ahead<T> ahead) {
  using A = Acc<T>;
  using Row = PanelRow<T>;
  constexpr int L = kLanes<A>, P = kPanelVectors<A>;
  const int64_t channel = panel * kPanel;
  // The last panel may be cut: its vector j holds channels of which those up to `outputs` are.
  constexpr int kWhole = (V - 1) * P;
  Mask<A> masks[P];
  for (int j = 0; j < P; ++j) masks[j] = lanes<A>(0, call.outputs - channel - (kWhole + j) * L);
  Vec<A> sums[R * V * P];
  DWCONV_UNROLL
  for (int j = 0; j < V * P; ++j) {
    Vec<A> bias = {};
    if (call.bias) bias = load_part<A, kWhole>(call.bias + channel, j, masks);
    DWCONV_UNROLL
    for (int r = 0; r < R; ++r) sums[r * V * P + j] = bias;
  }
  const T* weight = call.weight + panel * call.panel_size;
  const Segments& segments = call.segments;
  const T* row = pixels;
  for (int64_t s = 0, of_row = 0; s < segments.count; ++s) {
    const T* taps = row + of_row * segments.pitch;
    if (++of_row == segments.per_row) of_row = 0, row += segments.row_pitch;
    if constexpr (pairs) {
#if DWCONV_VEC_BYTES == 64
      multiply_pairs<R, V>(taps, call.pixel_pitch, weight, call.panel_size, ahead, segments.length, sums);
#endif
      weight += (segments.length + 1) / 2 * Row::kStep;
    } else if constexpr (sizeof(T) == sizeof(A)) {
      multiply<T, R, V>(taps, call.pixel_pitch, weight, call.panel_size, ahead, segments.length, sums);
      weight += segments.length * kPanel;
    } else {
      constexpr int64_t kChunk = 256;
      alignas(64) A scratch[R * kChunk];
      for (int64_t k = 0; k < segments.length; k += kChunk) {
        const int64_t count = std::min(kChunk, segments.length - k);
        const int64_t steps = (count + Row::kTaps - 1) / Row::kTaps;
        widen_pixels<T, R, kChunk>(taps + k, call.pixel_pitch, count, scratch);
        multiply<T, R, V>(scratch, kChunk, weight, call.panel_size, ahead, steps, sums);
        weight += steps * Row::kStep;
      }
    }
  }
  if (call.residual) {
    const T* residual = call.residual + pixel * call.outputs + channel;
    DWCONV_UNROLL
    for (int r = 0; r < R; ++r, residual += call.outputs) {
      DWCONV_UNROLL
      for (int j = 0; j < V * P; ++j) sums[r * V * P + j] += load_part<T, kWhole>(residual, j, masks);
    }
  }
  activate<T>(sums, call.activation);
  T* result = call.result + pixel * call.outputs + channel;
  DWCONV_UNROLL
  for (int r = 0; r < R; ++r, result += call.outputs) {
    DWCONV_UNROLL
    for (int j = 0; j < V * P; ++j) {
      if (j < kWhole) {
        store(result + j * L, sums[r * V * P + j]);
      } else {
        store(result + j * L, sums[r * V * P + j], masks[j - kWhole]);
      }
    }
  }
}

// Calls f(first, size) for tiles of up to `most` that are as equal as can be: 49 in tiles of up to 8 are 7 times 7.
template <class F>
DWCONV_INLINE void for_even_tiles(int64_t count, int64_t most, F f) {
  const int64_t tiles = ceil_div(count, most), size = tiles ? count / tiles : 0, larger = tiles ? count % tiles : 0;
  for (int64_t t = 0, first = 0; t < tiles; ++t) {
    const int64_t now = size + (t < larger);
    f(first, now);
    first += now;
  }
}

// Calls f(std::integral_constant<int, V>, panel) for groups of V panels: of the most that a tile takes, of two and two
// rather than three and one.
template <class A, class F>
DWCONV_INLINE void for_groups(int64_t begin, int64_t end, F f) {
  for (int64_t panel = begin; panel < end;) {
    const int64_t left = end - panel;
    if constexpr (kMostPanels<A> == 3) {
      if (left == 3 || left > 4) {
        f(std::integral_constant<int, 3>(), panel);
        panel += 3;
        continue;
      }
      if (left > 1) {
        f(std::integral_constant<int, 2>(), panel);
        panel += 2;
        continue;
      }
    }
    f(std::integral_constant<int, 1>(), panel);
    panel += 1;
  }
}

// The tiles of V panels, by the number of pixels less one.
template <class T, int V, bool pairs, class Pixels = std::make_integer_sequence<int, kMostPixels<Acc<T>, V>>>
struct Tiles;
template <class T, int V, bool pairs, int... r>
struct Tiles<T, V, pairs, std::integer_sequence<int, r...>> {
  using Function = void (*)(const DenseCall<T>&, const T*, int64_t panel, int64_t pixel, Ahead<T> ahead);
  static constexpr int kMost = sizeof...(r);
  static constexpr Function of_pixels[] = {tile<T, r + 1, V, pairs>...};

  // A run of pixels.
  static void run(const DenseCall<T>& call, const T* pixels, int64_t panel, int64_t pixel, int64_t count,
                  WeightStream<T>& stream) {
    for_even_tiles(count, kMost, [&](int64_t first, int64_t now) {
      of_pixels[now - 1](call, pixels + first * call.pixel_pitch, panel, pixel + first, stream.share());
    });
  }
};

DWCONV_END_TARGET

#endif  // DWCONV_CPU_DENSE_TILE_H
