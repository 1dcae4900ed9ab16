// The dense convolution of bf16, channels last (NHWC), on the matrix unit of Intel's servers (AMX, from Sapphire Rapids on).
//
// Method: the unit has eight tiles of up to 16 rows of 64 bytes, and multiplies a tile of pixels by one of weights:
//
//   32 taps of up to 16 pixels     16 pairs of taps of a panel     sums
//   x00 x01 | x02 x03 | ...   *    w0 w1 of 16 outputs       +=    16 outputs of each pixel
//   x10 x11 | x12 x13 | ...        w2 w3 of 16 outputs
//
// Pixels are rows of the input as it is, and a panel is rows of 64 bytes, so nothing is packed again. Two tiles of pixels meet
// two panels, which is four tiles of sums. Taps past the last 32 have tiles of their own width. Where pixels do not fill the
// last tile, it starts early and computes some of them again. Where a row of the filter has few taps or an odd number, as with
// the three channels of an image, the taps of a pixel are gathered first, each row with the zero that its panel has:
//
//   a b c d e f g h i | j k l m n o p q r | s t u v w x y z A   ->   a b ... i 0 j k ... r 0 s t ... A 0
//
// Operands that are subnormal count as zero, and results below 2^-126 are zero: so does the instruction.
// Bound: 512 multiply-adds a cycle; for few taps, activations and stores.
#if defined(DWCONV_CPU_DENSE_AMX_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_DENSE_AMX_H
#undef DWCONV_CPU_DENSE_AMX_H
#else
#define DWCONV_CPU_DENSE_AMX_H
#endif

#if DWCONV_VEC_BYTES == 64

#include "../kernel_list.h"
#include "blocks.h"
#include "matrix_unit.h"

DWCONV_BEGIN_TARGET

template <class T>
class DenseAmx {
 public:
  DenseAmx(Operation, const Shape& s) : blocks_(s, 2), gathers_(gathers(DenseBlocks<T>::segments_of(s))) {}

  static const char* supports(Operation, const Shape& s) {
    if (const char* why = DenseBlocks<T>::supports(s)) return why;
    const Segments segments = DenseBlocks<T>::segments_of(s);
    if (segments.length % 2 && !gathers(segments))
      return "an odd number of taps in a row of the filter, and many of them";
    return has_matrix_unit() ? nullptr : "the machine has no matrix unit (AMX)";
  }

  int64_t workspace_bytes() const { return 0; }

  int64_t items() const { return blocks_.items(); }

  void run(const Buffers& buffers, int64_t begin, int64_t end) const {
    const DenseCall<T> call = blocks_.call(buffers);
    const T* input = static_cast<const T*>(buffers.input);
    alignas(64) T gathered[2][16 * kGatheredPitch];
    const Segments segments = gathers_ ? Segments{1, 1, 2 * blocks_.steps, 0, 0} : call.segments;
    // All runs of pixels are of one length but those of the last block of a single row.
    int64_t configured = 0;
    blocks_.each(call, buffers, begin, end, [&](const auto& area, int64_t first, int64_t last, auto& stream) {
      const int64_t pixels = area.pixels(), pairs = ceil_div(pixels, 32), rows = ceil_div(pixels, 2 * pairs);
      if (rows != configured) configure(rows, segments.length % 32), configured = rows;
      for (int64_t panel = first; panel < last; panel += 2) {
        stream.spread((panel + 2 - first) * call.panel_size,
                      (area.last_row - area.first_row) * pairs * ceil_div(last - panel, 2), blocks_.steps);
        for (int64_t row = area.first_row; row < area.last_row; ++row) {
          const T* from = input + blocks_.source(row) + area.begin * call.pixel_pitch;
          const int64_t pixel = row * blocks_.pixels + area.begin;
          for (int64_t pair = 0; pair < pairs; ++pair) {
            const int64_t one = std::min(2 * pair * rows, pixels - rows);
            const int64_t two = std::min((2 * pair + 1) * rows, pixels - rows);
            Pixels<T> at = {from + one * call.pixel_pitch,
                            from + two * call.pixel_pitch,
                            call.pixel_pitch,
                            segments,
                            pixel + one,
                            pixel + two,
                            rows};
            if (gathers_) {
              gather(call, at.one, rows, gathered[0]), gather(call, at.two, rows, gathered[1]);
              at.one = gathered[0], at.two = gathered[1], at.pitch = kGatheredPitch;
            }
            if (panel + 1 < last) {
              multiply<2>(call, at, panel, stream.share());
            } else {
              multiply<1>(call, at, panel, stream.share());
            }
          }
        }
      }
    });
    if (configured > 0) asm volatile("tilerelease");
  }

  static constexpr Stage<DenseAmx> stages[] = {{&DenseAmx::items, &DenseAmx::run}};

 private:
  // Tiles 0 to 3 are sums, 4 and 5 pixels and weights, 6 and 7 the same of the taps past the last 32.
  static void configure(int64_t rows, int64_t taps_left) {
    MatrixTiles tiles;
    for (int sums = 0; sums < 4; ++sums) tiles.set(sums, rows, 64);
    tiles.set(4, rows, 64), tiles.set(5, 16, 64);
    if (taps_left > 0) tiles.set(6, rows, 2 * taps_left), tiles.set(7, taps_left / 2, 64);
    tiles.load();
  }

  static constexpr int64_t kMostGathered = 256, kGatheredPitch = kMostGathered + 32;  // taps

  static bool gathers(const Segments& segments) {
    const bool few = segments.length % 2 || (segments.length < 32 && segments.count > 1);
    return few && segments.count * ceil_div(segments.length, 2) * 2 <= kMostGathered;
  }

  // The taps of `rows` pixels, each segment of an even number.
  static void gather(const DenseCall<T>& call, const T* pixels, int64_t rows, T* gathered) {
    const Segments& segments = call.segments;
    const int64_t even = ceil_div(segments.length, 2) * 2;
    for (int64_t r = 0; r < rows; ++r, pixels += call.pixel_pitch, gathered += kGatheredPitch) {
      T* to = gathered;
      for (int64_t s = 0; s < segments.count; ++s, to += even) {
        const T* from = pixels + s / segments.per_row * segments.row_pitch + s % segments.per_row * segments.pitch;
        for (int64_t k = 0; k < segments.length; k += 32) {
          copy_taps(from + k, to + k, std::min<int64_t>(32, segments.length - k));
        }
      }
    }
  }

  // 1 to 32 taps, and zeros behind them.
  static DWCONV_INLINE_MEMBER void copy_taps(const T* from, T* to, int64_t count) {
    const uint32_t mask = ~0u >> (32 - count);
    Bits32 taps;
    asm("kmovd %2, %%k1\n\tvmovdqu16 %1, %0%{%%k1%}%{z%}"
        : "=v"(taps)
        : "m"(*reinterpret_cast<const char (*)[64]>(from)), "r"(mask)
        : "k1");
    std::memcpy(to, &taps, sizeof taps);
  }

  // Two tiles of pixels, which may overlap, and what their taps are.
  template <class P>
  struct Pixels {
    const P *one, *two;
    int64_t pitch;
    const Segments& segments;
    int64_t pixel_one, pixel_two, rows;
  };

  template <int V>
  static void multiply(const DenseCall<T>& call, const Pixels<T>& at, int64_t panel, Ahead<T> ahead) {
    alignas(64) float sums[2][16][2 * kPanel];  // of a tile of pixels, a panel beside the other
    const int64_t channel = panel * kPanel;
    for (int v = 0; v < V; ++v) {
      float* bias = sums[0][0] + v * kPanel;
      const Mask<float> mask = lanes<float>(0, call.outputs - channel - v * kPanel);
      store(bias, call.bias ? load(call.bias + channel + v * kPanel, mask) : Vec<float>{});
      v == 0 ? load_rows<0>(bias, 0) : load_rows<1>(bias, 0);  // every row of the tile is that one
      v == 0 ? load_rows<2>(bias, 0) : load_rows<3>(bias, 0);
    }
    const Segments& segments = at.segments;
    const int64_t pitch = at.pitch * int64_t(sizeof(T)), length = segments.length;
    const T* weight = call.weight + panel * call.panel_size;
    const T *row_one = at.one, *row_two = at.two;
    for (int64_t s = 0, of_row = 0; s < segments.count; ++s) {
      const T *one = row_one + of_row * segments.pitch, *two = row_two + of_row * segments.pitch;
      if (++of_row == segments.per_row) of_row = 0, row_one += segments.row_pitch, row_two += segments.row_pitch;
      int64_t k = 0;
      for (; k + 32 <= length; k += 32, weight += 32 * kPanel) {
        add<V, 4, 5>(one + k, two + k, pitch, weight, call.panel_size);
        for (int line = 0; line < 16; ++line) ahead.template fetch<4>();
      }
      if (k < length) {
        add<V, 6, 7>(one + k, two + k, pitch, weight, call.panel_size);
        weight += (length - k) * kPanel;
      }
    }
    store_rows<0>(sums[0][0]), store_rows<2>(sums[1][0]);
    if (V == 2) store_rows<1>(sums[0][0] + kPanel), store_rows<3>(sums[1][0] + kPanel);
    const bool whole = channel + V * kPanel <= call.outputs;
    for (int tile = 0; tile < 2; ++tile) {
      const int64_t pixel = tile == 0 ? at.pixel_one : at.pixel_two;
      whole ? finish<V, true>(call, sums[tile], pixel, at.rows, channel)
            : finish<V, false>(call, sums[tile], pixel, at.rows, channel);
    }
  }

  // sums += pixels * weights, in an order in which a tile that is loaded serves twice.
  template <int V, int pixels, int weights>
  static DWCONV_INLINE_MEMBER void add(const T* one, const T* two, int64_t pitch, const T* weight, int64_t panel_size) {
    load_rows<weights>(weight, 64);
    load_rows<pixels>(one, pitch), multiply_tiles<0, pixels, weights>();
    load_rows<pixels>(two, pitch), multiply_tiles<2, pixels, weights>();
    if constexpr (V == 2) {
      load_rows<weights>(weight + panel_size, 64), multiply_tiles<3, pixels, weights>();
      load_rows<pixels>(one, pitch), multiply_tiles<1, pixels, weights>();
    }
  }

  // What is done to the sums of `rows` pixels from `pixel` on. With `whole` the panels hold channels alone.
  template <int V, bool whole>
  static void finish(const DenseCall<T>& call, const float (&sums)[16][2 * kPanel], int64_t pixel, int64_t rows,
                     int64_t channel) {
    const Mask<float> last = lanes<float>(0, call.outputs - channel - (V - 1) * kPanel);
    int64_t at = pixel * call.outputs + channel, row = 0;
    for (; row + 4 <= rows; row += 4, at += 4 * call.outputs) finish_rows<V, whole, 4>(call, sums[row], at, last);
    for (; row < rows; ++row, at += call.outputs) finish_rows<V, whole, 1>(call, sums[row], at, last);
  }

  template <int V, bool whole, int R>
  static DWCONV_INLINE_MEMBER void finish_rows(const DenseCall<T>& call, const float* sums, int64_t at,
                                               Mask<float> last) {
    Vec<float> values[R * V];
    DWCONV_UNROLL
    for (int i = 0; i < R * V; ++i) values[i] = DWCONV_ISA::load(sums + i / V * 2 * kPanel + i % V * kPanel);
    if (call.residual) {
      DWCONV_UNROLL
      for (int i = 0; i < R * V; ++i) {
        const T* residual = call.residual + at + i / V * call.outputs + i % V * kPanel;
        values[i] += whole || i % V < V - 1 ? load(residual) : load(residual, last);
      }
    }
    activate<float>(values, call.activation);
    T* result = call.result + at;
    DWCONV_UNROLL
    for (int i = 0; i < R * V; ++i) {
      T* to = result + i / V * call.outputs + i % V * kPanel;
      if (whole || i % V < V - 1) {
        store_rounded(to, values[i]);
      } else {
        store(to, values[i], last);
      }
    }
  }

  // To the nearest bf16, ties to even, by the instruction for it, which makes zero of what is subnormal.
  static DWCONV_INLINE_MEMBER void store_rounded(T* p, Vec<float> value) {
    using Half = uint16_t __attribute__((vector_size(32)));
    Half half;
    asm("vcvtneps2bf16 %1, %0" : "=v"(half) : "v"(value));
    std::memcpy(p, &half, sizeof half);
  }

  DenseBlocks<T> blocks_;
  bool gathers_;
};

DWCONV_END_TARGET

#endif  // DWCONV_VEC_BYTES == 64

#endif  // DWCONV_CPU_DENSE_AMX_H
