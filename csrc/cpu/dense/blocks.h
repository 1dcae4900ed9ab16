// How the kernels of the dense convolution cut their work: rows of pixels, blocks of them that stay in the caches nearest the
// core, parts of the panels where blocks are few.
#if defined(DWCONV_CPU_DENSE_BLOCKS_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_DENSE_BLOCKS_H
#undef DWCONV_CPU_DENSE_BLOCKS_H
#else
#define DWCONV_CPU_DENSE_BLOCKS_H
#endif

#include "../axis/lattice.h"
#include "tile.h"

DWCONV_BEGIN_TARGET

template <class T>
struct DenseBlocks {
  using A = Acc<T>;

  // Rows [first_row, last_row), and of each the pixels [begin, end).
  struct Area {
    int64_t first_row, last_row, begin, end;
    int64_t pixels() const { return end - begin; }
  };

  Shape shape;
  Segments segments;
  int64_t rows, pixels;  // of the result: rows of pixels
  int64_t steps, panels;
  int64_t block_rows, block_pixels, blocks, parts;

  // An item is a part of the panels for a block of pixels. `group` panels are not cut.
  DenseBlocks(const Shape& s, int64_t group) : shape(s) {
    const bool plain = s.KH == 1 && s.KW == 1 && s.stride_h == 1 && s.stride_w == 1 && s.OH == s.H && s.OW == s.W;
    rows = plain ? 1 : s.N * s.OH, pixels = plain ? s.N * s.OH * s.OW : s.OW;
    segments = segments_of(s);
    steps = segments.count * ceil_div(segments.length, PanelRow<T>::kTaps);
    panels = ceil_div(s.M, kPanel);

    // Input of a block: 512 KB, at least enough pixels for tiles to be whole.
    const int64_t tap_bytes = std::max<int64_t>(1, steps) * PanelRow<T>::kTaps * int64_t(sizeof(T));
    const int64_t most = std::clamp<int64_t>(524288 / tap_bytes, 48, 672);
    if (rows == 1) {
      block_rows = 1;
      block_pixels = std::max<int64_t>(1, ceil_div(pixels, std::max<int64_t>(1, ceil_div(pixels, most))));
    } else {
      block_pixels = std::max<int64_t>(1, pixels), block_rows = std::max<int64_t>(1, most / block_pixels);
    }
    blocks = ceil_div(rows, block_rows) * ceil_div(pixels, block_pixels);
    constexpr int64_t kEnough = 16;
    parts = std::max<int64_t>(1, std::min(ceil_div(panels, group), kEnough / std::max<int64_t>(1, blocks)));
  }

  static Segments segments_of(const Shape& s) {
    const bool joined = s.dilation_w == 1 || s.KW == 1;
    const int64_t per_row = joined ? 1 : s.KW;
    return {s.KH * per_row, per_row, joined ? s.KW * s.C : s.C, s.dilation_h * s.W * s.C, s.dilation_w * s.C};
  }

  static const char* supports(const Shape& s) {
    const bool inside = s.pad_top == 0 && s.pad_left == 0 &&
                        (s.OH == 0 || (s.OH - 1) * s.stride_h + (s.KH - 1) * s.dilation_h < s.H) &&
                        (s.OW == 0 || (s.OW - 1) * s.stride_w + (s.KW - 1) * s.dilation_w < s.W);
    return inside ? nullptr : "taps lie outside the input";
  }

  int64_t items() const { return shape.M > 0 ? blocks * parts : 0; }

  // Calls f(area, first panel, panel behind the last, stream of weights) for what items [begin, end) are.
  template <class F>
  void each(const DenseCall<T>& call, const Buffers& buffers, int64_t begin, int64_t end, F f) const {
    if (begin == end) return;
    // What comes next is cut among the threads as this is, and no more of it than stays in L2 until it is read.
    constexpr int64_t kStays = 524288;
    const int64_t bytes = std::min(buffers.next_bytes, kStays), from = bytes * begin / items();
    const char* next = static_cast<const char*>(buffers.next) + from;
    for (int64_t item = begin; item < end;) {
      const int64_t b = item / parts, last = std::min(end, (b + 1) * parts);
      const int64_t first_panel = panels * (item - b * parts) / parts;
      const int64_t last_panel = panels * (last - b * parts) / parts;
      WeightStream<T> stream(call.weight + first_panel * call.panel_size, (last_panel - first_panel) * call.panel_size,
                             next, last == end ? bytes * end / items() - from : 0);
      f(area(b), first_panel, last_panel, stream);
      item = last;
    }
  }

  // The first pixel of a row that the results of `row` read.
  int64_t source(int64_t row) const {
    const int64_t n = rows == 1 ? 0 : row / shape.OH, oh = rows == 1 ? 0 : row % shape.OH;
    return (n * shape.H + oh * shape.stride_h) * shape.W * shape.C;
  }

  DenseCall<T> call(const Buffers& buffers) const {
    DenseCall<T> call;
    call.segments = segments;
    call.pixel_pitch = shape.stride_w * shape.C;
    call.panel_size = steps * PanelRow<T>::kStep;
    call.outputs = shape.M;
    call.bias = static_cast<const A*>(buffers.bias);
    call.residual = static_cast<const T*>(buffers.residual);
    call.result = static_cast<T*>(buffers.result);
    call.weight = static_cast<const T*>(buffers.weight);
    call.activation = buffers.activation;
    return call;
  }

 private:
  Area area(int64_t b) const {
    const int64_t per_row = ceil_div(pixels, block_pixels);
    const int64_t row = b / per_row * block_rows, pixel = b % per_row * block_pixels;
    return {row, std::min(rows, row + block_rows), pixel, std::min(pixels, pixel + block_pixels)};
  }
};

DWCONV_END_TARGET

#endif  // DWCONV_CPU_DENSE_BLOCKS_H
