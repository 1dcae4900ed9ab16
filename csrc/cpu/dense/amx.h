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
#include "../simd/round.h"
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
    const Bias bias(call);
    alignas(64) T gathered[2][16 * kGatheredPitch];
    // All runs of pixels are of one length but those of the last block of a single row.
    const int64_t taps = gathers_ ? 2 * blocks_.steps : blocks_.segments.length;
    int64_t configured = 0;
    blocks_.each(call, buffers, begin, end, [&](const auto& area, int64_t first, int64_t last, auto& stream) {
      const int64_t pairs = ceil_div(area.pixels(), 32), rows = ceil_div(area.pixels(), 2 * pairs);
      const int64_t groups = ceil_div(last - first, 2), pixels = (area.last_row - area.first_row) * pairs;
      if (rows != configured) configure(rows, taps % 32), configured = rows;
      const auto at_panels = [&](const Pixels& at, int64_t panel) {
        if (panel + 1 < last) {
          multiply<2>(call, at, bias, panel, stream.share());
        } else {
          multiply<1>(call, at, bias, panel, stream.share());
        }
      };
      if ((last - first) * call.panel_size * int64_t(sizeof(T)) <= kStaying) {
        for (int64_t i = 0; i < pixels; ++i) {
          const Pixels at = pixels_at(call, buffers, area, i, gathered);
          for (int64_t group = 0; group < groups; ++group) {
            // Weights are new to the first pixels alone.
            const int64_t read = i == 0 ? (2 * group + 2) * call.panel_size : (last - first) * call.panel_size;
            stream.spread(read, i == 0 ? groups - group : (pixels - i) * groups - group, blocks_.steps);
            at_panels(at, first + 2 * group);
          }
        }
        return;
      }
      for (int64_t group = 0; group < groups; ++group) {
        stream.spread((2 * group + 2) * call.panel_size, pixels * (groups - group), blocks_.steps);
        for (int64_t i = 0; i < pixels; ++i) {
          at_panels(pixels_at(call, buffers, area, i, gathered), first + 2 * group);
        }
      }
    });
    if (configured > 0) asm volatile("tilerelease");
  }

  static constexpr Stage<DenseAmx> stages[] = {{&DenseAmx::items, &DenseAmx::run}};

 private:
  // Tiles 0 to 3 are sums, 4 and 5 pixels and weights, 6 and 7 the same of the taps past the last 32. Where there are none, 6
  // and 7 are the second tile of pixels and of weights.
  static void configure(int64_t rows, int64_t taps_left) {
    MatrixTiles tiles;
    for (int sums = 0; sums < 4; ++sums) tiles.set(sums, rows, 64);
    tiles.set(4, rows, 64), tiles.set(5, 16, 64);
    const int64_t taps = taps_left > 0 ? taps_left : 32;
    tiles.set(6, rows, 2 * taps), tiles.set(7, taps / 2, 64);
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

  // Weights of up to so many bytes stay in L2. Then some pixels meet all panels, one after the other, and stay in L1, and
  // results are written in the order of memory. Larger weights are read once, by all pixels of a block.
  static constexpr int64_t kStaying = 1048576;

  // The bias of each panel, which begins the sums of its tiles. Nothing is stored for a tile: it would wait until that is in
  // the cache, and so for the results of the tile before it, which were stored earlier.
  class Bias {
   public:
    explicit Bias(const DenseCall<T>& call) : bias_(call.bias), whole_(call.bias ? call.outputs / kPanel : 0) {
      const int64_t channel = whole_ * kPanel;
      store(last_, bias_ ? load(bias_ + channel, lanes<float>(0, call.outputs - channel)) : Vec<float>{});
    }
    const float* of(int64_t panel) const { return panel < whole_ ? bias_ + panel * kPanel : last_; }

   private:
    const float* bias_;
    int64_t whole_;
    alignas(64) float last_[kPanel];  // of the panel that is cut, or zeros
  };

  // Two tiles of pixels, which may overlap, and what their taps are.
  struct Pixels {
    const T *one, *two;
    int64_t pitch;
    Segments segments;
    int64_t pixel_one, pixel_two, rows;
  };

  // Tiles 2*i and 2*i + 1 of an area.
  template <class Area>
  Pixels pixels_at(const DenseCall<T>& call, const Buffers& buffers, const Area& area, int64_t i,
                   T (&gathered)[2][16 * kGatheredPitch]) const {
    const int64_t pixels = area.pixels(), pairs = ceil_div(pixels, 32), rows = ceil_div(pixels, 2 * pairs);
    const int64_t row = area.first_row + i / pairs, pixel = row * blocks_.pixels + area.begin;
    const int64_t one = std::min(i % pairs * 2 * rows, pixels - rows);
    const int64_t two = std::min((i % pairs * 2 + 1) * rows, pixels - rows);
    const T* from = static_cast<const T*>(buffers.input) + blocks_.source(row) + area.begin * call.pixel_pitch;
    Pixels at = {from + one * call.pixel_pitch,
                 from + two * call.pixel_pitch,
                 call.pixel_pitch,
                 call.segments,
                 pixel + one,
                 pixel + two,
                 rows};
    if (gathers_) {
      gather(call, at.one, rows, gathered[0]), gather(call, at.two, rows, gathered[1]);
      at.one = gathered[0], at.two = gathered[1], at.pitch = kGatheredPitch;
      at.segments = {1, 1, 2 * blocks_.steps, 0, 0};
    }
    return at;
  }

  template <int V>
  static void multiply(const DenseCall<T>& call, const Pixels& at, const Bias& bias, int64_t panel, Ahead<T> ahead) {
    alignas(64) float sums[2][16][2 * kPanel];  // of a tile of pixels, a panel beside the other
    const int64_t channel = panel * kPanel;
    load_rows<0>(bias.of(panel), 0), load_rows<2>(bias.of(panel), 0);  // every row of the tile is that one
    if (V == 2) load_rows<1>(bias.of(panel + 1), 0), load_rows<3>(bias.of(panel + 1), 0);
    const Segments& segments = at.segments;
    const int64_t pitch = at.pitch * int64_t(sizeof(T)), length = segments.length;
    const T* weight = call.weight + panel * call.panel_size;
    const T *row_one = at.one, *row_two = at.two;
    for (int64_t s = 0, of_row = 0; s < segments.count; ++s) {
      const T *one = row_one + of_row * segments.pitch, *two = row_two + of_row * segments.pitch;
      if (++of_row == segments.per_row) of_row = 0, row_one += segments.row_pitch, row_two += segments.row_pitch;
      int64_t k = 0;
      for (; k + 32 <= length; k += 32, weight += 32 * kPanel) {
        if (length % 32 == 0) {
          add_whole<V>(one + k, two + k, pitch, weight, call.panel_size);
        } else {
          add<V, 4, 5>(one + k, two + k, pitch, weight, call.panel_size);
        }
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

  // The same where tiles 6 and 7 are free: nothing is loaded twice.
  template <int V>
  static DWCONV_INLINE_MEMBER void add_whole(const T* one, const T* two, int64_t pitch, const T* weight,
                                             int64_t panel_size) {
    load_rows<5>(weight, 64);
    load_rows<4>(one, pitch), multiply_tiles<0, 4, 5>();
    load_rows<6>(two, pitch), multiply_tiles<2, 6, 5>();
    if constexpr (V == 2) {
      load_rows<7>(weight + panel_size, 64), multiply_tiles<1, 4, 7>(), multiply_tiles<3, 6, 7>();
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
    activate<T>(values, call.activation);
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

  static DWCONV_INLINE_MEMBER void store_rounded(T* p, Vec<float> value) {
    const Half16 half = rounded_to_normal(value);
    std::memcpy(p, &half, sizeof half);
  }

  DenseBlocks<T> blocks_;
  bool gathers_;
};

DWCONV_END_TARGET

#endif  // DWCONV_VEC_BYTES == 64

#endif  // DWCONV_CPU_DENSE_AMX_H
