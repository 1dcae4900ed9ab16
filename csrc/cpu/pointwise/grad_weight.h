// pointwise_grad_weight, both layouts: result[o][c] = the sum over all pixels of grad_output[o] * input[c].
//
// Method: the tiles of the dense convolution (dense/tile.h), whose taps are pixels here: gradients are broadcast, and a
// panel holds 16 input channels of each pixel. NCHW planes are transposed into panels, NHWC rows are copied. A tile sums
// a block of pixels, which is added to what the blocks before it gave; so sums come in two steps, which costs no digits.
// Where the channels make few work items, chunks of blocks have sums of their own, as many as the shape says.
// Bound: FMA; bytes where channels are few.
#if defined(DWCONV_CPU_POINTWISE_GRAD_WEIGHT_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_POINTWISE_GRAD_WEIGHT_H
#undef DWCONV_CPU_POINTWISE_GRAD_WEIGHT_H
#else
#define DWCONV_CPU_POINTWISE_GRAD_WEIGHT_H
#endif

#include "../axis/planes.h"
#include "../dense/tile.h"
#include "../kernel_list.h"
#include "ahead.h"
#include "supports.h"

DWCONV_BEGIN_TARGET

// By `rows`, memory is rows of channels (NHWC), which are one image of all pixels; else planes.
template <class T, bool rows>
class PointwiseGradWeight {
 public:
  PointwiseGradWeight(Operation, const Shape& s)
      : images_(rows ? 1 : s.N), plane_(rows ? s.N * s.H * s.W : s.H * s.W), inputs_(s.C), outputs_(s.M) {
    // A block is a part of a plane, of whole vectors, or some small planes.
    const int64_t parts = std::max<int64_t>(1, ceil_div(plane_, kMostBlock));
    part_ = std::max<int64_t>(1, parts == 1 ? plane_ : ceil_div(ceil_div(plane_, parts), L) * L);
    parts_ = ceil_div(plane_, part_);
    together_ = parts_ == 1 ? std::max<int64_t>(1, kMostBlock / part_) : 1;
    blocks_ = ceil_div(images_, together_) * parts_;
    groups_ = ceil_div(ceil_div(inputs_, kPanel), kGroup);
    const int64_t fit = kMostWorkspace / std::max<int64_t>(1, sums() * int64_t(sizeof(A)));
    const int64_t wanted = ceil_div(kEnough, std::max<int64_t>(1, groups_));
    chunks_ = std::max<int64_t>(1, std::min({wanted, fit, blocks_}));
  }

  static const char* supports(Operation, const Shape& s) { return pointwise_refusal(s); }

  int64_t workspace_bytes() const { return chunks_ > 1 ? chunks_ * sums() * int64_t(sizeof(A)) : 0; }

  // An item is a chunk of the blocks for a group of panels.
  int64_t items() const { return outputs_ > 0 ? chunks_ * groups_ : 0; }

  void run(const Buffers& buffers, int64_t begin, int64_t end) const {
    alignas(64) T memory[kGroup * kPanel * kMostBlock];
    for (int64_t item = begin; item < end; ++item) {
      const int64_t chunk = item / groups_, group = item % groups_;
      const int64_t first = blocks_ * chunk / chunks_, last = blocks_ * (chunk + 1) / chunks_;
      const int64_t panel = group * kGroup, panels = std::min<int64_t>(kGroup, ceil_div(inputs_, kPanel) - panel);
      Call call;
      call.self = this;
      call.grad_output = static_cast<const T*>(buffers.grad_output);
      call.memory = memory, call.input = static_cast<const T*>(buffers.input);
      call.sums = static_cast<T*>(chunks_ > 1 ? buffers.workspace : buffers.result) + chunk * sums();
      if (first == last) fill_zeros(call.sums, panel, panels);
      for (int64_t block = first; block < last; ++block) {
        const Block pixels = block_at(block);
        call.is_first = block == first;
        pack(static_cast<const T*>(buffers.input), panel, panels, pixels, memory);
        for_groups<A>(0, panels, [&](auto group_size, int64_t offset) {
          constexpr int V = group_size.value;
          for_even_tiles(outputs_, kMostPixels<A, V>, [&](int64_t row, int64_t count) {
            Tiles<V>::of_rows[count - 1](call, pixels, panel, offset, row);
          });
        });
      }
    }
  }

  // An item is some of the sums, of all chunks.
  int64_t add_items() const { return chunks_ > 1 ? ceil_div(sums(), kAdded) : 0; }

  void add(const Buffers& buffers, int64_t begin, int64_t end) const {
    const A* chunks = static_cast<const A*>(buffers.workspace);
    T* result = static_cast<T*>(buffers.result);
    const auto vector = [&](int64_t i, auto... mask) {
      Vec<A> sum = load(chunks + i, mask...);
      for (int64_t chunk = 1; chunk < chunks_; ++chunk) sum += load(chunks + chunk * sums() + i, mask...);
      store(result + i, sum, mask...);
    };
    const int64_t last = std::min(sums(), end * kAdded);
    int64_t i = begin * kAdded;
    for (; i + L <= last; i += L) vector(i);
    if (i < last) vector(i, lanes<A>(0, last - i));
  }

  static constexpr Stage<PointwiseGradWeight> stages[] = {{&PointwiseGradWeight::items, &PointwiseGradWeight::run},
                                                          {&PointwiseGradWeight::add_items, &PointwiseGradWeight::add}};

 private:
  using A = Acc<T>;
  static_assert(std::is_same_v<A, T>, "tiles read the tensors themselves");
  static constexpr int L = kLanes<A>, P = kPanelVectors<A>, kGroup = kMostPanels<A>;
  static constexpr int64_t kMostBlock =
      rows ? 128 : 208;  // pixels: of three panels 40 KB of L1; 14x14 planes are whole
  static constexpr int64_t kLine = 64 / sizeof(T), kFewOutputs = 64;
  static constexpr int64_t kEnough = 16, kMostWorkspace = 8 << 20, kAdded = 1024;

  // Pixels [begin, end) of the planes of images [first, last).
  struct Block {
    int64_t first, last, begin, end;
    int64_t length() const { return end - begin; }
    int64_t pixels() const { return (last - first) * length(); }
  };
  struct Call {
    const PointwiseGradWeight* self;
    const T *grad_output, *memory, *input;
    T* sums;
    bool is_first;
  };

  int64_t sums() const { return outputs_ * inputs_; }

  Block block_at(int64_t block) const {
    const int64_t first = block / parts_ * together_, begin = block % parts_ * part_;
    return {first, std::min(images_, first + together_), begin, std::min(plane_, begin + part_)};
  }

  void fill_zeros(T* sums, int64_t panel, int64_t panels) const {
    const int64_t first = panel * kPanel, last = std::min(inputs_, first + panels * kPanel);
    for (int64_t o = 0; o < outputs_; ++o) std::fill(sums + o * inputs_ + first, sums + o * inputs_ + last, T());
  }

  // The channels of some panels, zeros past the last.
  void pack(const T* input, int64_t first_panel, int64_t panels, const Block& block, T* memory) const {
    const int64_t size = block.pixels() * kPanel;
    for (int64_t vector = 0; vector < panels * P; ++vector) {
      const int64_t of_all = first_panel * P + vector;
      T* to = memory + vector / P * size + vector % P * L;
      if constexpr (rows) {
        const Mask<A> mask = lanes<A>(0, inputs_ - of_all * L);
        const T* from = input + block.begin * inputs_ + of_all * L;
        for (int64_t i = 0; i < block.length(); ++i, from += inputs_) store(to + i * kPanel, load(from, mask));
      } else {
        const Planes<const T> planes = {input, inputs_, inputs_ * plane_, plane_};
        for (int64_t n = block.first; n < block.last; ++n, to += block.length() * kPanel) {
          planes.to_places(n, of_all, block.begin, block.length(), to, [](int64_t i) { return i * kPanel; });
        }
      }
    }
  }

  template <int R, int V>
  static void tile(const Call& call, const Block& block, int64_t first_panel, int64_t offset, int64_t row) {
    const PointwiseGradWeight& self = *call.self;
    const int64_t size = block.pixels() * kPanel;
    Vec<A> sums[R * V * P] = {};
    NothingAhead nothing;
    const T* panel = call.memory + offset * size;
    if constexpr (rows) {
      const T* gradients = call.grad_output + block.begin * self.outputs_ + row;
      // The gradients of the next tile, and if tiles are few, each a column of lines of the next block's input.
      const LinesAhead<T, 1> of_gradients = {gradients + R, self.outputs_};
      const int64_t line = row / R * kLine;
      const auto run = [&](auto next) __attribute__((always_inline)) {
        multiply<T, R, V, true>(gradients, self.outputs_, panel, size, next, block.length(), sums);
      };
      if (self.outputs_ <= kFewOutputs && line < V * kPanel) {
        const T* input = call.input + block.end * self.inputs_ + (first_panel + offset) * kPanel + line;
        run(BothAhead<LinesAhead<T, 1>, LinesAhead<T, 2>>{of_gradients, {input, self.inputs_}});
      } else {
        run(of_gradients);
      }
    } else {
      for (int64_t n = block.first; n < block.last; ++n, panel += block.length() * kPanel) {
        const T* gradients = call.grad_output + (n * self.outputs_ + row) * self.plane_ + block.begin;
        multiply<T, R, V>(gradients, self.plane_, panel, size, nothing, block.length(), sums);
      }
    }
    const int64_t channel = (first_panel + offset) * kPanel;
    T* to = call.sums + row * self.inputs_ + channel;
    DWCONV_UNROLL
    for (int j = 0; j < V * P; ++j) {
      const Mask<A> mask = lanes<A>(0, self.inputs_ - channel - j * L);
      DWCONV_UNROLL
      for (int r = 0; r < R; ++r) {
        T* at = to + r * self.inputs_ + j * L;
        store(at, call.is_first ? sums[r * V * P + j] : sums[r * V * P + j] + load(at, mask), mask);
      }
    }
  }

  template <int V, class Rows = std::make_integer_sequence<int, kMostPixels<A, V>>>
  struct Tiles;
  template <int V, int... r>
  struct Tiles<V, std::integer_sequence<int, r...>> {
    using Function = void (*)(const Call&, const Block&, int64_t, int64_t, int64_t);
    static constexpr Function of_rows[] = {tile<r + 1, V>...};
  };

  int64_t images_, plane_, inputs_, outputs_;
  int64_t part_, parts_, together_, blocks_;  // pixels of a part of a plane, parts of a plane, planes of a block
  int64_t groups_, chunks_;
};

DWCONV_END_TARGET

#endif  // DWCONV_CPU_POINTWISE_GRAD_WEIGHT_H
