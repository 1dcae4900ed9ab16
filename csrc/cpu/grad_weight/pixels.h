// grad_weight and the bias gradient through pixels of one vector of channels, either layout, any geometry.
//
// Method: bands of grad_output and the input rows that they meet are gathered for one vector of channels, [pixel][lane] in
// the accumulator's type, into scratch space that stays in L2: in NHWC a copy, in NCHW a transposition, log2(L) shuffles
// for L values. taps.h adds them up in sub-bands that stay in L1. So no lane is lost to short rows, padding costs nothing,
// no load straddles cache lines, no tap needs a sum over lanes, and dtypes, multipliers and layouts differ in the gathering
// alone. Kernels too large for L1 go in blocks of taps, each with pixels of its own. Work is split by vector of channels
// and, when there are few, by chunks of bands.
// Bound: FMA; at 3x3 in NCHW the shuffles as well.
#if defined(DWCONV_CPU_GRAD_WEIGHT_PIXELS_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_GRAD_WEIGHT_PIXELS_H
#undef DWCONV_CPU_GRAD_WEIGHT_PIXELS_H
#else
#define DWCONV_CPU_GRAD_WEIGHT_PIXELS_H
#endif

#include "../axis/bands.h"
#include "../kernel_list.h"
#include "readers.h"
#include "taps.h"

DWCONV_BEGIN_TARGET

template <class T, template <class> class Reader>
class GradWeightPixels {
 public:
  using A = Acc<T>;
  static constexpr int L = kLanes<A>;

  GradWeightPixels(Operation, const Shape& s)
      : s_(s),
        cut_(s),
        row_bands_(s.OH > 0 ? ceil_div(s.OH, cut_.rows) : 0),
        col_bands_(s.OW > 0 ? ceil_div(s.OW, cut_.cols) : 0),
        all_bands_(s.N * row_bands_ * col_bands_),
        far_(operand_bytes(s, sizeof(T)) > caches::kPixelsInAnyOrder),
        dilation_h_(s.KH > 1 ? s.dilation_h : s.stride_h),
        dilation_w_(s.KW > 1 ? s.dilation_w : s.stride_w),
        row_period_(dilation_h_ / std::gcd(dilation_h_, s.stride_h)),
        col_period_(dilation_w_ / std::gcd(dilation_w_, s.stride_w)),
        sums_{0, ceil_div(s.out_channels(), L), s.taps()} {
    // From memory a chunk is a band or few: what lies side by side, all vectors of its channels, is read together.
    const int64_t wanted = far_ ? all_bands_ : bands(all_bands_, 1, sums_.vectors);
    const int64_t worthwhile = s.N * s.OH * s.OW / std::max(kChunkPixels, 8 * s.taps());
    sums_.chunks = std::max<int64_t>({1, std::min(wanted, worthwhile), ceil_div(all_bands_, kAccumulators)});
  }

  static const char* supports(Operation, const Shape&) { return nullptr; }

  int64_t workspace_bytes() const { return sums_.bytes(); }

  // Stage 1, an item one chunk of bands for one vector of channels.
  int64_t items() const { return sums_.chunks * sums_.vectors; }

  void run(const Buffers& buffers, int64_t begin, int64_t end) const {
    const Reader<T> input(buffers.input, s_.C, s_.H, s_.W, s_.M, far_);
    const Reader<T> grad(buffers.grad_output, s_.out_channels(), s_.OH, s_.OW, 1, far_);
    const ChunkSums<A> sums(sums_, buffers.workspace);
    for (int64_t item = begin; item < end; ++item) {
      const int64_t vector = item % sums_.vectors, chunk = item / sums_.vectors;
      for (int64_t k = 0; k < s_.KH; k += cut_.tap_rows) {
        for (int64_t t = 0; t < s_.KW; t += cut_.tap_cols) {
          const Block block{*this,
                            input,
                            grad,
                            vector,
                            k,
                            std::min(cut_.tap_rows, s_.KH - k),
                            t,
                            std::min(cut_.tap_cols, s_.KW - t),
                            sums.at(chunk, vector),
                            buffers.grad_bias && k == 0 && t == 0};
          block.add(all_bands_ * chunk / sums_.chunks, all_bands_ * (chunk + 1) / sums_.chunks);
        }
      }
      if (sums_.chunks == 1) sums.template finish<T>(vector, s_.out_channels(), buffers);
    }
  }

  // Stage 2, an item a vector of channels, where there are chunks to be added.
  int64_t finish_items() const { return sums_.chunks > 1 ? sums_.vectors : 0; }
  void finish(const Buffers& buffers, int64_t begin, int64_t end) const {
    const ChunkSums<A> sums(sums_, buffers.workspace);
    for (int64_t vector = begin; vector < end; ++vector) sums.template finish<T>(vector, s_.out_channels(), buffers);
  }

  static constexpr Stage<GradWeightPixels> stages[] = {{&GradWeightPixels::items, &GradWeightPixels::run},
                                                       {&GradWeightPixels::finish_items, &GradWeightPixels::finish}};

 private:
  // Pixels of input and grad_output together: two of 33x33 with AVX-512.
  static constexpr int64_t kScratch = 147456 / kVecBytes;
  // Of them in L1. Registers add up all products of a sub-band, so baseline x86-64, which rounds each, has shorter ones.
  static constexpr int64_t kSubBand = kVecBytes == 16 ? 512 : 32768 / kVecBytes;
  static constexpr int64_t kTaps = 16384 / kVecBytes;  // accumulators
  static constexpr int64_t kChunkPixels = 256;         // worth the sums of another chunk

  // How much is gathered at once, for how many taps.
  struct Cut {
    int64_t tap_rows, tap_cols, rows, cols;  // of grad_output

    static int64_t reach(int64_t results, int64_t taps, int64_t stride, int64_t dilation, int64_t sources) {
      return std::min(sources, (results - 1) * stride + (taps - 1) * dilation + 1);
    }

    explicit Cut(const Shape& s) {
      constexpr int64_t kWide = kScratch / 8;
      tap_cols = std::min(s.KW, kTaps);
      if (s.W > kWide) tap_cols = std::clamp<int64_t>(kWide / s.dilation_w, 1, tap_cols);
      cols = s.OW;
      if (s.W + s.OW > 2 * kWide) cols = std::clamp<int64_t>(kWide / s.stride_w, 1, std::max<int64_t>(1, s.OW));
      const int64_t width = reach(cols, tap_cols, s.stride_w, s.dilation_w, s.W);
      const auto fits = [&](int64_t results, int64_t taps) {
        return reach(results, taps, s.stride_h, s.dilation_h, s.H) * width + results * cols <= kScratch;
      };
      tap_rows = std::clamp<int64_t>(s.KH, 1, std::max<int64_t>(1, kTaps / tap_cols));
      rows = std::min<int64_t>(4, s.OH);
      while (tap_rows > 1 && !fits(rows, tap_rows)) --tap_rows;
      while (rows > 1 && !fits(rows, tap_rows)) --rows;
      while (rows < s.OH && fits(rows + 1, tap_rows)) ++rows;
      if (rows > 0) rows = ceil_div(s.OH, ceil_div(s.OH, rows));
      if (s.KH > 0) tap_rows = ceil_div(s.KH, ceil_div(s.KH, tap_rows));
    }
  };

  // A block of taps for one vector of channels.
  struct Block {
    const GradWeightPixels& plan;
    const Reader<T>& input;
    const Reader<T>& grad;
    int64_t vector, k, tap_rows, t, tap_cols;
    A* sums;
    bool with_bias;

    void add(int64_t begin, int64_t end) const {
      alignas(kVecBytes) A scratch[kScratch * L];
      Total<A> acc[kTaps], bias = {};
      std::fill_n(acc, tap_rows * tap_cols, Total<A>{});
      for (int64_t band = begin; band < end; ++band) {
        const int64_t col = band % plan.col_bands_, row = band / plan.col_bands_;
        add_band(row / plan.row_bands_, row % plan.row_bands_, col, scratch, acc, bias);
      }
      for (int64_t i = 0; i < tap_rows; ++i) {
        for (int64_t j = 0; j < tap_cols; ++j)
          store(sums + ((k + i) * plan.s_.KW + t + j) * L, acc[i * tap_cols + j].value());
      }
      if (with_bias) store(sums + plan.sums_.taps * L, bias.value());
    }

    void add_band(int64_t n, int64_t row_band, int64_t col_band, A* scratch, Total<A>* acc, Total<A>& bias) const {
      const Shape& s = plan.s_;
      const int64_t row = row_band * plan.cut_.rows, rows = std::min(plan.cut_.rows, s.OH - row);
      const int64_t col = col_band * plan.cut_.cols, cols = std::min(plan.cut_.cols, s.OW - col);
      const int64_t top = row * s.stride_h + k * s.dilation_h - s.pad_top;
      const int64_t left = col * s.stride_w + t * s.dilation_w - s.pad_left;
      const int64_t row_begin = std::clamp<int64_t>(top, 0, s.H), col_begin = std::clamp<int64_t>(left, 0, s.W);
      const int64_t row_end =
          std::clamp<int64_t>(top + (rows - 1) * s.stride_h + (tap_rows - 1) * s.dilation_h + 1, row_begin, s.H);
      const int64_t col_end =
          std::clamp<int64_t>(left + (cols - 1) * s.stride_w + (tap_cols - 1) * s.dilation_w + 1, col_begin, s.W);
      const int64_t height = row_end - row_begin, width = col_end - col_begin;
      const View<A> grads = grad.view(n, vector, row, rows, col, cols, scratch);
      if (with_bias) add_bias(grads, rows, cols, bias);
      if (height == 0 || width == 0) return;
      const View<A> inputs = input.view(n, vector, row_begin, height, col_begin, width, scratch + rows * cols * L);
      if (tap_rows == 3 && tap_cols == 3 && (plan.row_period_ > 1 || plan.col_period_ > 1)) {
        return add_dilated(grads, inputs, {rows, cols, top - row_begin, left - col_begin, height, width}, acc);
      }

      Pixels<A> pixels;
      pixels.grad_row = plan.row_period_ * grads.row;
      pixels.grad_col = plan.col_period_ * grads.col;
      pixels.input_row = plan.dilation_h_ * inputs.row;
      pixels.input_col = plan.dilation_w_ * inputs.col;
      pixels.row_reuse = plan.row_period_ * s.stride_h / plan.dilation_h_;
      pixels.col_reuse = plan.col_period_ * s.stride_w / plan.dilation_w_;
      for (int64_t i = 0; i < std::min(plan.row_period_, rows); ++i) {
        const int64_t y = top + i * s.stride_h - row_begin;
        pixels.rows = ceil_div(rows - i, plan.row_period_);
        pixels.row_range = inside(y, plan.dilation_h_, height);
        for (int64_t j = 0; j < std::min(plan.col_period_, cols); ++j) {
          const int64_t x = left + j * s.stride_w - col_begin;
          pixels.cols = ceil_div(cols - j, plan.col_period_);
          pixels.col_range = inside(x, plan.dilation_w_, width);
          pixels.grad = grads.first + i * grads.row + j * grads.col;
          pixels.input = inputs.first + y * inputs.row + x * inputs.col;
          add_pixels(pixels, cols + width * s.stride_h, acc);
        }
      }
    }

    struct Sizes {
      int64_t rows, cols, y, x, height, width;  // results; the position of result (0, 0) in tap (0, 0); positions
    };

    void add_dilated(const View<A>& grads, const View<A>& inputs, const Sizes& size, Total<A>* acc) const {
      const Shape& s = plan.s_;
      Dilated3x3<A> taps;
      taps.grad = grads.first, taps.grad_row = grads.row, taps.grad_col = grads.col;
      taps.input = inputs.first + size.y * inputs.row + size.x * inputs.col;
      taps.input_row = s.stride_h * inputs.row, taps.input_col = s.stride_w * inputs.col;
      taps.tap_row = s.dilation_h * inputs.row, taps.tap_col = s.dilation_w * inputs.col;
      for (int64_t tap = 0; tap < 3; ++tap) {
        taps.row_inside[tap] = inside(size.y + tap * s.dilation_h, s.stride_h, size.height);
        taps.col_inside[tap] = inside(size.x + tap * s.dilation_w, s.stride_w, size.width);
      }
      taps.rows = size.rows, taps.cols = size.cols;
      taps.add_to(acc);
    }

    static void add_bias(const View<A>& grads, int64_t rows, int64_t cols, Total<A>& bias) {
      for (int64_t i = 0; i < rows; ++i) {
        Vec<A> sum = {};
        for (int64_t j = 0; j < cols; ++j) sum += load(grads.first + i * grads.row + j * grads.col);
        bias += sum;
      }
    }

    // In sub-bands that stay in L1 while every kernel row passes over them.
    void add_pixels(const Pixels<A>& pixels, int64_t row_pixels, Total<A>* acc) const {
      if (tap_rows == 3 && tap_cols == 3 && pixels.row_reuse == pixels.col_reuse && pixels.col_reuse <= 2) {
        const Mask<A> all(0, L);
        return pixels.col_reuse == 1 ? taps_3x3<1>(pixels, all, acc) : taps_3x3<2>(pixels, all, acc);
      }
      if (tap_cols <= 2 && tap_cols < tap_rows && pixels.row_reuse <= 2) return turned(pixels, acc);
      sub_bands(pixels, tap_rows, tap_cols, row_pixels, acc);
    }

    // Few columns of taps are few accumulators: rows go for columns.
    void turned(const Pixels<A>& pixels, Total<A>* acc) const {
      Total<A> sums[kTaps];
      std::fill_n(sums, tap_rows * tap_cols, Total<A>{});
      const int64_t column_pixels = pixels.rows * (1 + pixels.row_reuse) * pixels.col_reuse;
      sub_bands(pixels.turned(), tap_cols, tap_rows, column_pixels, sums);
      for (int64_t i = 0; i < tap_rows; ++i) {
        for (int64_t j = 0; j < tap_cols; ++j) acc[i * tap_cols + j] += sums[j * tap_rows + i].value();
      }
    }

    void sub_bands(const Pixels<A>& pixels, int64_t rows_of_taps, int64_t taps, int64_t row_pixels,
                   Total<A>* acc) const {
      if (pixels.cols > kLongest<A>) {
        for (int64_t j = 0; j < pixels.cols; j += kLongest<A>) {
          sub_bands(pixels.columns(j, std::min(pixels.cols, j + kLongest<A>)), rows_of_taps, taps, row_pixels, acc);
        }
        return;
      }
      // An accumulator adds up every second row.
      const int64_t fit = std::min(kSubBand / row_pixels - rows_of_taps / 2, 2 * (kChain<A> / pixels.cols));
      const int64_t step = std::max<int64_t>(2, fit / 2 * 2);
      for (int64_t i = 0; i < pixels.rows; i += step) {
        const Pixels<A> band = pixels.band(i, std::min(pixels.rows, i + step));
        if (pixels.col_reuse == 1) {
          for_pieces(Pieces<1>{band, acc, rows_of_taps, taps}, taps);
        } else if (pixels.col_reuse == 2) {
          for_pieces(Pieces<2>{band, acc, rows_of_taps, taps}, taps);
        } else {
          for_pieces(Pieces<0>{band, acc, rows_of_taps, taps}, taps);
        }
      }
    }

    template <int S>
    struct Pieces {
      const Pixels<A>& pixels;
      Total<A>* acc;
      int64_t tap_rows, taps;

      template <int NT>
      DWCONV_INLINE_MEMBER void piece(int64_t t) const {
        TapRows<A, S, NT>{pixels, acc + t, taps, t, tap_rows}.all();
      }
    };
  };

  Shape s_;
  Cut cut_;
  int64_t row_bands_, col_bands_, all_bands_;  // of an image, and of all
  bool far_;                                   // the operands come from memory
  // Rows and columns of grad_output form lattices (lattice.h) whose neighbours share positions.
  int64_t dilation_h_, dilation_w_, row_period_, col_period_;
  SumsShape<A> sums_;
};

template <class T>
using NhwcGradWeightPixels = GradWeightPixels<T, PixelReader>;
template <class T>
using NchwGradWeightTransposed = GradWeightPixels<T, PlaneReader>;

DWCONV_END_TARGET

#endif  // DWCONV_CPU_GRAD_WEIGHT_PIXELS_H
