// grad_weight and the bias gradient, 3x3 at stride 1 or 2 without dilation, where a vector runs over channels: in NHWC on
// the tensors as they lie, without a multiplier; in NCHW on bands that are transposed into scratch space in L1.
//
// Method: for one vector of channels the tiles of taps.h cover a band of rows of an image, with nine accumulators in
// registers all the while; then for the next vector of channels, so that whole pixels are read while they are near. Small
// images are one band. Work is split by vector of channels and, when there are few, by chunks of bands; without chunks the
// sums go to the result without a workspace.
// Bound: FMA; bytes where the tensors sit in L3 or beyond; in NCHW the shuffles as well.
#if defined(DWCONV_CPU_GRAD_WEIGHT_PIXELS3X3_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_GRAD_WEIGHT_PIXELS3X3_H
#undef DWCONV_CPU_GRAD_WEIGHT_PIXELS3X3_H
#else
#define DWCONV_CPU_GRAD_WEIGHT_PIXELS3X3_H
#endif

#include "../axis/bands.h"
#include "../axis/planes.h"
#include "../kernel_list.h"
#include "taps.h"

DWCONV_BEGIN_TARGET

template <class T>
struct PixelsInPlace {
  using Element = T;
  using A = Acc<T>;
  static constexpr int64_t kScratch = 0;  // pixels

  static Pixels<T> band(const Shape& s, const Buffers& b, int64_t n, int64_t o, int64_t rows, int64_t vector, A*) {
    const int64_t channel = vector * kLanes<A>, y = s.stride_h * o - s.pad_top;
    Pixels<T> pixels = {};
    pixels.grad = static_cast<const T*>(b.grad_output) + (n * s.OH + o) * s.OW * s.C + channel;
    pixels.input = static_cast<const T*>(b.input) + ((n * s.H + y) * s.W - s.pad_left) * s.C + channel;
    pixels.grad_row = s.OW * s.C, pixels.input_row = s.W * s.C;
    pixels.grad_col = pixels.input_col = s.C;
    pixels.rows = rows, pixels.cols = s.OW;
    pixels.row_reuse = pixels.col_reuse = s.stride_h;
    pixels.row_range = inside(y, 1, s.H), pixels.col_range = inside(-s.pad_left, 1, s.W);
    // Measured: two rows ahead where hardware fetches too little, eight pixels ahead in L3; where rows are short, the line
    // that the next vector of channels reads.
    const int64_t bytes = operand_bytes(s, sizeof(T));
    if (s.OW >= 28 && bytes > caches::kPixelsInL3) {
      pixels.grad_ahead = 2 * pixels.grad_row, pixels.input_ahead = 2 * s.stride_h * pixels.input_row;
    } else if (s.OW >= 28 && bytes > caches::kPixelsInL2) {
      pixels.grad_ahead = pixels.input_ahead = 8 * s.C;
    } else if (s.OW < 28 && bytes > caches::kShortRowsInL3) {
      pixels.grad_ahead = pixels.input_ahead = kVecBytes / sizeof(T);
    }
    return pixels;
  }

  static Mask<A> mask(const Shape& s, int64_t vector) { return lanes<A>(0, s.C - vector * kLanes<A>); }
  static const char* supports(const Shape& s) { return s.M == 1 ? nullptr : "there is a channel multiplier"; }
};

template <class T>
struct PixelsOfPlanes {
  using Element = Acc<T>;
  using A = Acc<T>;
  static constexpr int L = kLanes<A>;
  static constexpr int64_t kScratch = 40960 / kVecBytes;

  static Pixels<A> band(const Shape& s, const Buffers& b, int64_t n, int64_t o, int64_t rows, int64_t vector,
                        A* scratch) {
    const int64_t top = s.stride_h * o - s.pad_top;
    const int64_t begin = std::clamp<int64_t>(top, 0, s.H);
    const int64_t height = std::clamp<int64_t>(top + s.stride_h * (rows - 1) + 3, begin, s.H) - begin;
    A* const inputs = scratch + rows * s.OW * L;
    const Planes<const T> grads{static_cast<const T*>(b.grad_output), s.out_channels(), s.out_channels() * s.OH * s.OW,
                                s.OH * s.OW};
    grads.to_pixels(n, vector, o * s.OW, rows * s.OW, scratch);
    const Planes<const T> sources{static_cast<const T*>(b.input), s.C, s.C * s.H * s.W, s.H * s.W, s.M};
    if (height > 0) sources.to_pixels(n, vector, begin * s.W, height * s.W, inputs);
    Pixels<A> pixels = {};
    pixels.grad = scratch;
    pixels.input = inputs + ((top - begin) * s.W - s.pad_left) * L;
    pixels.grad_row = s.OW * L, pixels.input_row = s.W * L;
    pixels.grad_col = pixels.input_col = L;
    pixels.rows = rows, pixels.cols = s.OW;
    pixels.row_reuse = pixels.col_reuse = s.stride_h;
    pixels.row_range = inside(top - begin, 1, height), pixels.col_range = inside(-s.pad_left, 1, s.W);
    return pixels;
  }

  static Mask<A> mask(const Shape&, int64_t) { return Mask<A>(0, L); }
  static const char* supports(const Shape& s) {
    return (s.stride_h + 3) * s.W + 2 * s.OW > kScratch ? "rows do not fit into the scratch space" : nullptr;
  }
};

template <class T, template <class> class Access>
class GradWeightPixels3x3 {
 public:
  using A = Acc<T>;
  using E = typename Access<T>::Element;
  static constexpr int L = kLanes<A>;

  GradWeightPixels3x3(Operation, const Shape& s)
      : s_(s),
        band_rows_(rows_of_band(s)),
        image_bands_(s.OW > 0 ? ceil_div(s.OH, band_rows_) : 0),
        all_bands_(s.N * image_bands_),
        sums_{1, ceil_div(s.out_channels(), L), 9} {
    const int64_t worthwhile = std::min(bands(all_bands_, 1, sums_.vectors), s.N * s.OH * s.OW / kChunkPixels);
    sums_.chunks = std::max<int64_t>({1, worthwhile, ceil_div(all_bands_, kAccumulators)});
  }

  static const char* supports(Operation, const Shape& s) {
    if (s.KH != 3 || s.KW != 3) return "the kernel is not 3x3";
    if (s.stride_h != s.stride_w || s.stride_h > 2) return "the stride is neither 1 nor 2";
    if (s.dilation_h != 1 || s.dilation_w != 1) return "the dilation is not 1";
    return Access<T>::supports(s);
  }

  int64_t workspace_bytes() const { return sums_.chunks > 1 ? sums_.bytes() : 0; }

  // Stage 1, an item one vector of channels in one chunk of bands.
  int64_t items() const { return sums_.chunks * sums_.vectors; }

  void run(const Buffers& buffers, int64_t begin, int64_t end) const {
    while (begin < end) {
      const int64_t vector = begin % sums_.vectors;
      const int64_t last = std::min({sums_.vectors, vector + kVectors, vector + end - begin});
      Block{*this, buffers, vector, last}.add(begin / sums_.vectors);
      begin += last - vector;
    }
  }

  // Stage 2, an item a vector of channels, where there are chunks to be added.
  int64_t finish_items() const { return sums_.chunks > 1 ? sums_.vectors : 0; }
  void finish(const Buffers& buffers, int64_t begin, int64_t end) const {
    const ChunkSums<A> sums(sums_, buffers.workspace);
    for (int64_t vector = begin; vector < end; ++vector) sums.template finish<T>(vector, s_.out_channels(), buffers);
  }

  static constexpr Stage<GradWeightPixels3x3> stages[] = {
      {&GradWeightPixels3x3::items, &GradWeightPixels3x3::run},
      {&GradWeightPixels3x3::finish_items, &GradWeightPixels3x3::finish}};

 private:
  static constexpr int64_t kVectors = 32;       // that share a band
  static constexpr int64_t kBandPixels = 512;   // whose products an accumulator of float32 may add up
  static constexpr int64_t kChunkPixels = 256;  // worth the sums of another chunk

  // An even number, for about kBandPixels results, if there is scratch space enough.
  static int64_t rows_of_band(const Shape& s) {
    int64_t rows = kBandPixels / std::max<int64_t>(1, s.OW);
    if (Access<T>::kScratch > 0) {
      const int64_t pixels = Access<T>::kScratch - (3 - s.stride_h) * s.W;
      rows = std::min(rows, pixels / std::max<int64_t>(1, s.OW + s.stride_h * s.W));
    }
    rows = std::max<int64_t>(2, rows / 2 * 2);
    rows = ceil_div(s.OH, std::max<int64_t>(1, ceil_div(s.OH, rows)));
    return std::max<int64_t>(2, rows + rows % 2);
  }

  // Vectors [begin, end) of channels.
  struct Block {
    const GradWeightPixels3x3& plan;
    const Buffers& buffers;
    int64_t begin, end;

    void add(int64_t chunk) const {
      Total<A> acc[kVectors][10];  // the bias last
      std::fill_n(&acc[0][0], 10 * (end - begin), Total<A>{});
      const int64_t bands = plan.all_bands_, chunks = plan.sums_.chunks;
      for (int64_t band = bands * chunk / chunks; band < bands * (chunk + 1) / chunks; ++band) add_band(band, acc);
      A* const values = values_of(&acc[0][0], 10 * (end - begin));
      if (chunks > 1) {
        std::memcpy(ChunkSums<A>(plan.sums_, buffers.workspace).at(chunk, begin), values,
                    (end - begin) * 10 * kVecBytes);
        return;
      }
      const ChunkSums<A> sums({1, end - begin, 9}, values);
      T* const weight = static_cast<T*>(buffers.result) + begin * L * 9;
      T* const bias = buffers.grad_bias ? static_cast<T*>(buffers.grad_bias) + begin * L : nullptr;
      for (int64_t v = 0; v < end - begin; ++v) sums.finish(v, plan.s_.out_channels() - begin * L, weight, bias);
    }

    void add_band(int64_t band, Total<A> (*acc)[10]) const {
      alignas(kVecBytes) A scratch[std::max<int64_t>(1, Access<T>::kScratch * L)];
      const Shape& s = plan.s_;
      const int64_t n = band / plan.image_bands_, o = band % plan.image_bands_ * plan.band_rows_;
      const int64_t rows = std::min(plan.band_rows_, s.OH - o);
      for (int64_t v = begin; v < end; ++v) {
        const Pixels<E> pixels = Access<T>::band(s, buffers, n, o, rows, v, scratch);
        const Mask<A> mask = Access<T>::mask(s, v);
        s.stride_h == 1 ? taps_3x3<1>(pixels, mask, acc[v - begin]) : taps_3x3<2>(pixels, mask, acc[v - begin]);
        if (buffers.grad_bias) add_results(pixels, mask, acc[v - begin][9]);
      }
    }
  };

  static void add_results(const Pixels<E>& pixels, Mask<A> mask, Total<A>& total) {
    for (int64_t i = 0; i < pixels.rows; ++i) {
      const E* at = pixels.grad + i * pixels.grad_row;
      Vec<A> sum = {};
      for (int64_t j = 0; j < pixels.cols; ++j, at += pixels.grad_col) sum += load(at, mask);
      total += sum;
    }
  }

  Shape s_;
  int64_t band_rows_, image_bands_, all_bands_;
  SumsShape<A> sums_;
};

template <class T>
using NhwcGradWeightPixels3x3 = GradWeightPixels3x3<T, PixelsInPlace>;
template <class T>
using NchwGradWeightTransposed3x3 = GradWeightPixels3x3<T, PixelsOfPlanes>;

DWCONV_END_TARGET

#endif  // DWCONV_CPU_GRAD_WEIGHT_PIXELS3X3_H
