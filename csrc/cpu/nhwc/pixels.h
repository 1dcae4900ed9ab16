// forward and grad_input, channels last (NHWC), any geometry.
//
// Method: a vector runs over channels, a tile goes along R results of a row. One row of taps at a time is held in
// registers while the tile walks its source pixels, each loaded once (axis/tile.h); vertical padding is loop bounds. A first
// stage packs the weights, [channel][tap] to [tap][channel] in the accumulator's type, so that a tap is one load.
// A channel multiplier spreads input channels over lanes in forward; grad_input gathers them with a stride.
// Bound: bytes for 3x3, FMA from 5x5 on.
#if defined(DWCONV_CPU_NHWC_PIXELS_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_NHWC_PIXELS_H
#undef DWCONV_CPU_NHWC_PIXELS_H
#else
#define DWCONV_CPU_NHWC_PIXELS_H
#endif

#include "../axis/bands.h"
#include "../axis/channels.h"
#include "../axis/gather.h"
#include "../kernel_list.h"
#include "../simd/activate.h"

DWCONV_BEGIN_TARGET

template <class T>
class NhwcPixels {
 public:
  using A = Acc<T>;
  static constexpr int L = kLanes<A>;

  NhwcPixels(Operation operation, const Shape& shape)
      : problem_(operation, shape),
        channels_(problem_.channels, problem_.taps),
        rows_(problem_.rows, false),
        cols_(problem_.cols, true),
        parts_(bands(problem_.rows.results, 4, problem_.images * channels_.blocks())) {}

  static const char* supports(Operation, const Shape&) { return nullptr; }

  int64_t workspace_bytes() const { return problem_.fan_in * problem_.taps * channels_.pitch() * int64_t(sizeof(A)); }

  // Stage 1, an item a vector of channels: packed[f][tap][channel], zero past the last channel.
  int64_t pack_items() const { return channels_.vectors; }

  void pack(const Buffers& buffers, int64_t begin, int64_t end) const {
    const GatherCall<T> call(problem_, buffers);
    A* packed = static_cast<A*>(buffers.workspace);
    for (int64_t f = 0; f < call.fan_in; ++f) {
      for (int64_t v = begin; v < end; ++v) {
        const T* filters = call.weight + call.filter(v * L, f) * call.taps;
        for (int64_t tap = 0; tap < call.taps; ++tap) {
          store(packed + (f * call.taps + tap) * channels_.pitch() + v * L,
                load_lanes(filters + tap, call.taps * call.fan_in, channels_.mask(v)));
        }
      }
    }
  }

  // Stage 2, an item a band of rows of an image for a block of channels.
  int64_t items() const { return problem_.images * parts_ * channels_.blocks(); }

  void run(const Buffers& buffers, int64_t begin, int64_t end) const {
    const GatherCall<T> call(problem_, buffers);
    const int64_t length = ceil_div(call.rows.results, parts_);
    for (int64_t item = begin; item < end; ++item) {
      const int64_t block = item % channels_.blocks(), band = item / channels_.blocks() % parts_;
      const int64_t n = item / channels_.blocks() / parts_;
      const int64_t last = std::min(call.rows.results, (band + 1) * length);
      for (int64_t o = band * length; o < last; ++o) {
        compute_row(call, static_cast<const A*>(buffers.workspace), n, o, block);
      }
    }
  }

  static constexpr Stage<NhwcPixels> stages[] = {{&NhwcPixels::pack_items, &NhwcPixels::pack},
                                                 {&NhwcPixels::items, &NhwcPixels::run}};

 private:
  // One row of results, the channels of one block.
  template <int S, Lanes kind>
  struct Row {
    const GatherCall<T>& call;
    const Channels<A>& channels;
    const A* packed;
    const T* source;  // the image
    T* result;        // the row
    const Lattice& rows;
    const Lattice& cols;
    int64_t source_row;  // of tap 0
    Range taps;          // the rows of taps that lie inside
    int64_t block;

    template <int R>
    struct Tile {
      const Row& row;
      const A* filter;  // this vector's lane of the packed weights of the tap row
      const T* pixels;  // the source row
      int64_t channel, j;
      Mask<A> mask;
      Vec<A> (&acc)[R];

      template <int NT>
      DWCONV_INLINE_MEMBER void piece(int64_t t) const {
        const GatherCall<T>& call = row.call;
        const Lattice& cols = row.cols;
        const int64_t col = cols.source + cols.source_period * j + cols.tap_step * t;
        const Range range = inside(col, cols.tap_step, call.cols.sources);
        Vec<A> weight[NT];
        DWCONV_UNROLL
        for (int i = 0; i < NT; ++i) {
          weight[i] = load(filter + (cols.k + cols.k_step * (t + i)) * row.channels.pitch());
        }
        const auto positions = pixel_source<T, kind>(pixels + col * call.source_channels,
                                                     cols.tap_step * call.source_channels, channel, mask, call.M);
        correlate<ToResults, R, NT, S>(acc, weight, positions, range);
      }
    };

    template <int R>
    DWCONV_INLINE_MEMBER void tile(int64_t j) const {
      for (int64_t v = channels.begin(block); v < channels.end(block); ++v) {
        const Mask<A> mask = channels.mask(v);
        Vec<A> acc[R];
        const Vec<A> initial = call.bias ? load(call.bias + v * L, mask) : Vec<A>{};
        DWCONV_UNROLL
        for (int r = 0; r < R; ++r) acc[r] = initial;
        for (int64_t f = 0; f < call.fan_in; ++f) {
          const A* filters = packed + f * call.taps * channels.pitch() + v * L;
          for (int64_t t = taps.lo; t < taps.hi; ++t) {
            const A* filter = filters + (rows.k + rows.k_step * t) * call.cols.kernel * channels.pitch();
            const T* pixels = source + f + (source_row + rows.tap_step * t) * call.cols.sources * call.source_channels;
            if constexpr (kSumsByRow<A>) {
              Vec<A> sums[R] = {};
              for_pieces(Tile<R>{*this, filter, pixels, first_channel(v), j, mask, sums}, cols.taps);
              DWCONV_UNROLL
              for (int r = 0; r < R; ++r) acc[r] += sums[r];
            } else {
              for_pieces(Tile<R>{*this, filter, pixels, first_channel(v), j, mask, acc}, cols.taps);
            }
          }
        }
        activate<T>(acc, call.activation);
        DWCONV_UNROLL
        for (int r = 0; r < R; ++r) {
          store(result + (cols.first + cols.period * (j + r)) * call.channels + v * L, acc[r], mask);
        }
      }
    }

    // Where the vector's source channels begin; f comes on top.
    DWCONV_INLINE_MEMBER int64_t first_channel(int64_t v) const { return call.transposed ? v * L * call.M : v * L; }
  };

  // Row o of image n, for one block of channels.
  void compute_row(const GatherCall<T>& call, const A* packed, int64_t n, int64_t o, int64_t block) const {
    Lattice row_spare, col_spare;
    const Lattice& rows = rows_.at(o % rows_.count(), row_spare);
    const int64_t source_row = rows.source + rows.source_period * (o / rows_.count());
    Range taps = inside(source_row, rows.tap_step, call.rows.sources);
    taps.hi = std::min(taps.hi, rows.taps);
    T* result = call.result + (n * call.rows.results + o) * call.cols.results * call.channels;
    for (int64_t i = 0; i < cols_.count(); ++i) {
      const Lattice& cols = cols_.at(i, col_spare);
      const int64_t reuse = cols.reuse();
      const auto walk = call.M > 1   ? (call.transposed ? spread<Lanes::strided> : spread<Lanes::repeated>)(reuse)
                        : reuse == 1 ? tiles<1, Lanes::contiguous>
                        : reuse == 2 ? tiles<2, Lanes::contiguous>
                                     : tiles<0, Lanes::contiguous>;
      walk(call, channels_, packed, call.source_image(n), result, rows, cols, source_row, taps, block);
    }
  }

  template <int S, Lanes kind>
  static void tiles(const GatherCall<T>& call, const Channels<A>& channels, const A* packed, const T* source, T* result,
                    const Lattice& rows, const Lattice& cols, int64_t source_row, Range taps, int64_t block) {
    const Row<S, kind> row{call, channels, packed, source, result, rows, cols, source_row, taps, block};
    for_tiles<S, true>(row, 0, cols.count);
  }

  // For a channel multiplier.
  template <Lanes kind>
  static auto spread(int64_t reuse) {
    return reuse == 1 ? tiles<1, kind> : tiles<0, kind>;
  }

  Gather problem_;
  Channels<A> channels_;
  Lattices rows_, cols_;
  int64_t parts_;  // bands of an image
};

DWCONV_END_TARGET

#endif  // DWCONV_CPU_NHWC_PIXELS_H
