// The dense convolution, channels last (NHWC), from packed weights (kernel.h): groups=1, every tap inside the input.
//
// Method: tiles of pixels by panels (tile.h). A block of pixels, small enough to stay in the caches nearest the core, meets
// all panels before the next block comes. A 1x1 convolution of stride 1 sees one row of N*H*W pixels; any other one sees
// its N*OH rows. Where blocks are few, panels are work items too.
// Bound: FMA; of the method `pairs`, which multiplies bf16 by the instruction for it, twice that.
#if defined(DWCONV_CPU_DENSE_PANELS_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_DENSE_PANELS_H
#undef DWCONV_CPU_DENSE_PANELS_H
#else
#define DWCONV_CPU_DENSE_PANELS_H
#endif

#include "../axis/lattice.h"
#include "../kernel_list.h"
#include "tile.h"

DWCONV_BEGIN_TARGET

template <class T, bool pairs = false>
class DensePanels {
 public:
  using A = Acc<T>;

  DensePanels(Operation, const Shape& s) : shape_(s) {
    const bool plain = s.KH == 1 && s.KW == 1 && s.stride_h == 1 && s.stride_w == 1 && s.OH == s.H && s.OW == s.W;
    rows_ = plain ? 1 : s.N * s.OH, pixels_ = plain ? s.N * s.OH * s.OW : s.OW;
    const bool joined = s.dilation_w == 1 || s.KW == 1;
    segments_.per_row = joined ? 1 : s.KW;
    segments_.count = s.KH * segments_.per_row;
    segments_.length = joined ? s.KW * s.C : s.C;
    segments_.row_pitch = s.dilation_h * s.W * s.C;
    segments_.pitch = s.dilation_w * s.C;
    steps_ = segments_.count * ceil_div(segments_.length, PanelRow<T>::kTaps);
    panels_ = ceil_div(s.M, kPanel);

    // Input of a block: 512 KB, at least enough pixels for tiles to be whole.
    const int64_t tap_bytes = std::max<int64_t>(1, steps_) * PanelRow<T>::kTaps * int64_t(sizeof(T));
    const int64_t most = std::clamp<int64_t>(524288 / tap_bytes, 48, 672);
    if (rows_ == 1) {
      block_rows_ = 1,
      block_pixels_ = std::max<int64_t>(1, ceil_div(pixels_, std::max<int64_t>(1, ceil_div(pixels_, most))));
    } else {
      block_pixels_ = std::max<int64_t>(1, pixels_), block_rows_ = std::max<int64_t>(1, most / block_pixels_);
    }
    blocks_ = ceil_div(rows_, block_rows_) * ceil_div(pixels_, block_pixels_);
    constexpr int64_t kEnough = 16;
    const int64_t groups = ceil_div(panels_, kMostPanels<A>);
    parts_ = std::max<int64_t>(1, std::min(groups, kEnough / std::max<int64_t>(1, blocks_)));
  }

  static const char* supports(Operation, const Shape& s) {
    if (pairs && !has_pairs()) return "the machine does not multiply pairs of bf16";
    const bool inside = s.pad_top == 0 && s.pad_left == 0 &&
                        (s.OH == 0 || (s.OH - 1) * s.stride_h + (s.KH - 1) * s.dilation_h < s.H) &&
                        (s.OW == 0 || (s.OW - 1) * s.stride_w + (s.KW - 1) * s.dilation_w < s.W);
    return inside ? nullptr : "taps lie outside the input";
  }

  int64_t workspace_bytes() const { return 0; }

  // An item a part of the panels for a block of pixels.
  int64_t items() const { return shape_.M > 0 ? blocks_ * parts_ : 0; }

  void run(const Buffers& buffers, int64_t begin, int64_t end) const {
    DenseCall<T> call;
    call.segments = segments_;
    call.pixel_pitch = shape_.stride_w * shape_.C;
    call.panel_size = steps_ * PanelRow<T>::kStep;
    call.outputs = shape_.M;
    call.bias = static_cast<const A*>(buffers.bias);
    call.residual = static_cast<const T*>(buffers.residual);
    call.result = static_cast<T*>(buffers.result);
    call.weight = static_cast<const T*>(buffers.weight);
    call.activation = buffers.activation;
    const T* input = static_cast<const T*>(buffers.input);
    // What comes next is cut among the threads as this is, and no more of it than stays in L2 until it is read.
    constexpr int64_t kStays = 524288;
    const int64_t bytes = std::min(buffers.next_bytes, kStays), from = bytes * begin / items();
    const char* next = static_cast<const char*>(buffers.next) + from;
    for (int64_t item = begin; item < end;) {
      const int64_t b = item / parts_, last = std::min(end, (b + 1) * parts_);
      const int64_t first_panel = panels_ * (item - b * parts_) / parts_;
      const int64_t last_panel = panels_ * (last - b * parts_) / parts_;
      WeightStream<T> stream(call.weight + first_panel * call.panel_size, (last_panel - first_panel) * call.panel_size,
                             next, last == end ? bytes * end / items() - from : 0);
      block(call, input, area(b), first_panel, last_panel, stream);
      item = last;
    }
  }

  static constexpr Stage<DensePanels> stages[] = {{&DensePanels::items, &DensePanels::run}};

 private:
  static bool has_pairs() {
#if DWCONV_VEC_BYTES == 64
    static const bool has = __builtin_cpu_supports("avx512bf16");
    return has;
#else
    return false;
#endif
  }

  // Rows [first_row, last_row), and of each the pixels [begin, end).
  struct Area {
    int64_t first_row, last_row, begin, end;
  };
  Area area(int64_t b) const {
    const int64_t per_row = ceil_div(pixels_, block_pixels_);
    const int64_t row = b / per_row * block_rows_, pixel = b % per_row * block_pixels_;
    return {row, std::min(rows_, row + block_rows_), pixel, std::min(pixels_, pixel + block_pixels_)};
  }

  // Panels [begin, end) of a block: groups of the most that a tile takes, of two and two rather than three and one.
  void block(const DenseCall<T>& call, const T* input, const Area& area, int64_t begin, int64_t end,
             WeightStream<T>& stream) const {
    int64_t panel = begin;
    const auto take = [&](auto panels) {
      constexpr int V = panels.value;
      using Group = Tiles<T, V, pairs>;
      const int64_t tiles = (area.last_row - area.first_row) * ceil_div(area.end - area.begin, Group::kMost);
      stream.spread((panel + V - begin) * call.panel_size, tiles * ceil_div(end - panel, V), steps_);
      for (int64_t row = area.first_row; row < area.last_row; ++row) {
        const int64_t n = rows_ == 1 ? 0 : row / shape_.OH, oh = rows_ == 1 ? 0 : row % shape_.OH;
        const T* pixels = input + (n * shape_.H + oh * shape_.stride_h) * shape_.W * shape_.C;
        Group::run(call, pixels + area.begin * call.pixel_pitch, panel, row * pixels_ + area.begin,
                   area.end - area.begin, stream);
      }
      panel += V;
    };
    while (panel < end) {
      const int64_t left = end - panel;
      if constexpr (kMostPanels<A> == 3) {
        if (left == 3 || left > 4) {
          take(std::integral_constant<int, 3>());
          continue;
        }
        if (left > 1) {
          take(std::integral_constant<int, 2>());
          continue;
        }
      }
      take(std::integral_constant<int, 1>());
    }
  }

  Shape shape_;
  Segments segments_;
  int64_t rows_, pixels_;  // of the result: rows of pixels
  int64_t steps_, panels_;
  int64_t block_rows_, block_pixels_, blocks_, parts_;
};

template <class T>
using DensePairs = DensePanels<T, true>;

DWCONV_END_TARGET

#endif  // DWCONV_CPU_DENSE_PANELS_H
