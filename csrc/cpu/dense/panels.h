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

#include "../kernel_list.h"
#include "blocks.h"

DWCONV_BEGIN_TARGET

template <class T, bool pairs = false>
class DensePanels {
 public:
  DensePanels(Operation, const Shape& s) : blocks_(s, kMostPanels<Acc<T>>) {}

  static const char* supports(Operation, const Shape& s) {
    if (const char* why = DenseBlocks<T>::supports(s)) return why;
    return !pairs || has_pairs() ? nullptr : "the machine does not multiply pairs of bf16";
  }

  int64_t workspace_bytes() const { return 0; }

  int64_t items() const { return blocks_.items(); }

  void run(const Buffers& buffers, int64_t begin, int64_t end) const {
    const DenseCall<T> call = blocks_.call(buffers);
    const T* input = static_cast<const T*>(buffers.input);
    blocks_.each(call, buffers, begin, end, [&](const auto& area, int64_t first, int64_t last, auto& stream) {
      block(call, input, area, first, last, stream);
    });
  }

  static constexpr Stage<DensePanels> stages[] = {{&DensePanels::items, &DensePanels::run}};

 private:
  using Area = typename DenseBlocks<T>::Area;

  static bool has_pairs() {
#if DWCONV_VEC_BYTES == 64
    static const bool has = __builtin_cpu_supports("avx512bf16");
    return has;
#else
    return false;
#endif
  }

  // Panels [begin, end) of a block.
  void block(const DenseCall<T>& call, const T* input, const Area& area, int64_t begin, int64_t end,
             WeightStream<T>& stream) const {
    for_groups<Acc<T>>(begin, end, [&](auto panels, int64_t panel) {
      constexpr int V = panels.value;
      using Group = Tiles<T, V, pairs>;
      const int64_t tiles = (area.last_row - area.first_row) * ceil_div(area.pixels(), Group::kMost);
      stream.spread((panel + V - begin) * call.panel_size, tiles * ceil_div(end - panel, V), blocks_.steps);
      for (int64_t row = area.first_row; row < area.last_row; ++row) {
        const T* pixels = input + blocks_.source(row) + area.begin * call.pixel_pitch;
        Group::run(call, pixels, panel, row * blocks_.pixels + area.begin, area.pixels(), stream);
      }
    });
  }

  DenseBlocks<T> blocks_;
};

template <class T>
using DensePairs = DensePanels<T, true>;

DWCONV_END_TARGET

#endif  // DWCONV_CPU_DENSE_PANELS_H
