// grad_weight and the bias gradient, contiguous layout (NCHW), any geometry.
//
// Method: as in nchw/rows.h a vector runs along a row of grad_output and a tile goes down R of its rows, which stay in
// registers; for each kernel column the tile walks the input rows, and adds into one accumulator vector per tap. The
// accumulators of a block of taps live in L1. They are flushed into f64 sums, one a tap, before a lane has added more
// than kChain products, so that the error does not grow with the size of the problem. Work is split by filter and, when
// there are few, by groups of images; a last stage adds the groups up in order.
// Bound: FMA, and the accumulators' way through L1 at 3x3.
#if defined(DWCONV_CPU_GRAD_WEIGHT_ROWS_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_GRAD_WEIGHT_ROWS_H
#undef DWCONV_CPU_GRAD_WEIGHT_ROWS_H
#else
#define DWCONV_CPU_GRAD_WEIGHT_ROWS_H
#endif

#include "../axis/bands.h"
#include "../axis/tile.h"
#include "../kernel_list.h"
#include "sums.h"

DWCONV_BEGIN_TARGET

// The sum of `size` elements, in f64 over vectors of at most kChain each.
template <class T>
double plane_sum(const T* p, int64_t size) {
  using A = Acc<T>;
  constexpr int L = kLanes<A>;
  double total = 0;
  for (int64_t first = 0; first < size; first += kChain<A> * L) {
    const int64_t last = std::min(size, first + kChain<A> * L);
    Vec<A> acc = {};
    for (int64_t i = first; i < last; i += L) acc += load(p + i, lanes<A>(0, last - i));
    total += sum<A>(acc);
  }
  return total;
}

template <class T>
class GradWeightRows {
 public:
  using A = Acc<T>;
  static constexpr int L = kLanes<A>;

  GradWeightRows(Operation operation, const Shape& s)
      : images_(s.N),
        channels_(s.out_channels()),
        M_(s.M),
        taps_(s.taps()),
        rows_(vertical_axis(operation, s)),
        cols_(horizontal_axis(operation, s)),
        chunks_(bands(images_, 1, channels_)) {}

  static const char* supports(Operation, const Shape&) { return nullptr; }

  int64_t workspace_bytes() const { return items() * sums() * int64_t(sizeof(double)); }

  // Stage 1, an item the images of one chunk for one filter.
  int64_t items() const { return channels_ * chunks_; }

  void run(const Buffers& buffers, int64_t begin, int64_t end) const {
    const Call call{*this, static_cast<const T*>(buffers.input), static_cast<const T*>(buffers.grad_output)};
    const Lattice rows = refine(residue(rows_, 0), 0), cols = residue(cols_, 0);
    const int64_t images = ceil_div(images_, chunks_);
    for (int64_t item = begin; item < end; ++item) {
      const int64_t channel = item / chunks_, chunk = item % chunks_;
      const int64_t first = chunk * images, last = std::min(images_, first + images);
      double* totals = static_cast<double*>(buffers.workspace) + item * sums();
      std::fill_n(totals, sums(), 0.0);
      if (rows.reuse() == 1 && cols.source_period == 1) {
        filter<1, Lanes::contiguous>(call, channel, first, last, totals);
      } else if (rows.reuse() == 2 && cols.source_period == 2) {
        filter<2, Lanes::even>(call, channel, first, last, totals);
      } else {
        filter<0, Lanes::strided>(call, channel, first, last, totals);
      }
      if (!buffers.grad_bias) continue;
      for (int64_t n = first; n < last; ++n) {
        totals[taps_] += plane_sum(call.grad_output_plane(n, channel), rows_.results * cols_.results);
      }
    }
  }

  // Stage 2, an item a filter: add its chunks up, in order.
  int64_t filters() const { return channels_; }

  void finish(const Buffers& buffers, int64_t begin, int64_t end) const {
    const double* workspace = static_cast<const double*>(buffers.workspace);
    for (int64_t channel = begin; channel < end; ++channel) {
      for (int64_t tap = 0; tap < sums(); ++tap) {
        double total = 0;
        for (int64_t chunk = 0; chunk < chunks_; ++chunk) {
          total += workspace[(channel * chunks_ + chunk) * sums() + tap];
        }
        if (tap < taps_) {
          from_acc(A(total), static_cast<T*>(buffers.result) + channel * taps_ + tap);
        } else if (buffers.grad_bias) {
          from_acc(A(total), static_cast<T*>(buffers.grad_bias) + channel);
        }
      }
    }
  }

  static constexpr Stage<GradWeightRows> stages[] = {{&GradWeightRows::items, &GradWeightRows::run},
                                                     {&GradWeightRows::filters, &GradWeightRows::finish}};

 private:
  static constexpr int kColumns = 8;  // kernel columns in a block of taps

  int64_t sums() const { return taps_ + 1; }  // of one filter, the bias last

  // The plan with the operands of a call.
  struct Call {
    const GradWeightRows& plan;
    const T* input;
    const T* grad_output;
    const Axis& rows = plan.rows_;
    const Axis& cols = plan.cols_;

    const T* input_plane(int64_t n, int64_t channel) const {
      return input + (n * (plan.channels_ / plan.M_) + channel / plan.M_) * rows.sources * cols.sources;
    }
    const T* grad_output_plane(int64_t n, int64_t channel) const {
      return grad_output + (n * plan.channels_ + channel) * rows.results * cols.results;
    }
  };

  // NT rows of taps t, t + 1, ... and up to kColumns columns u, u + 1, ... of one filter.
  template <int S, Lanes kind, int NT>
  struct Block {
    const Call& call;
    const Lattice& rows;
    const Lattice& cols;
    const T* input;  // planes
    const T* grad_output;
    int64_t t, u, columns;
    double* sums;
    Vec<A> (&acc)[kColumns][NT];
    int64_t& chain;

    template <int R>
    DWCONV_INLINE_MEMBER void tile(int64_t j) const {
      const int64_t width = call.cols.sources;
      const int64_t row = rows.source + rows.source_period * j + rows.tap_step * t;
      const Range range = inside(row, rows.tap_step, call.rows.sources);
      for (int64_t col = 0; col < cols.count; col += L) {
        const int64_t count = std::min<int64_t>(L, cols.count - col);
        Vec<A> grad[R];
        DWCONV_UNROLL
        for (int r = 0; r < R; ++r) {
          const T* grads = grad_output + (rows.first + rows.period * (j + r)) * cols.count + col;
          grad[r] = load(grads, lanes<A>(0, count));
        }
        int64_t first = cols.source + cols.source_period * col + cols.tap_step * u;
        for (int64_t i = 0; i < columns; ++i, first += cols.tap_step) {
          const Range valid = inside(first, cols.source_period, width);
          const Mask<A> mask = lanes<A>(valid.lo, std::min(valid.hi, count));
          if (mask.empty()) continue;
          const Source<T, kind> positions{input + row * width + first, rows.tap_step * width, mask, cols.source_period,
                                          Ints<A>{}};
          if (mask.lo() > 0 || mask.hi() < count) {
            // Padding must not turn an infinite gradient into NaN.
            Vec<A> inner[R];
            DWCONV_UNROLL
            for (int r = 0; r < R; ++r) inner[r] = keep<A>(grad[r], mask);
            correlate<ToTaps, R, NT, S>(acc[i], inner, positions, range);
          } else {
            correlate<ToTaps, R, NT, S>(acc[i], grad, positions, range);
          }
        }
        chain += R;
        if (chain >= kChain<A>) flush();
      }
    }

    void flush() const {
      for (int64_t i = 0; i < columns; ++i) {
        for (int tap = 0; tap < NT; ++tap) {
          sums[(t + tap) * call.cols.kernel + u + i] += sum<A>(acc[i][tap]);
          acc[i][tap] = Vec<A>{};
        }
      }
      chain = 0;
    }
  };

  // The images [begin, end) of one filter.
  template <int S, Lanes kind>
  struct Filter {
    const Call& call;
    int64_t channel, begin, end;
    double* sums;

    template <int NT>
    DWCONV_INLINE_MEMBER void piece(int64_t t) const {
      for (int64_t u = 0; u < call.cols.kernel; u += kColumns) block<NT>(t, u);
    }

    template <int NT>
    void block(int64_t t, int64_t u) const {
      const Lattice coarse = residue(call.rows, 0), cols = residue(call.cols, 0);
      const int64_t columns = std::min<int64_t>(kColumns, call.cols.kernel - u);
      Vec<A> acc[kColumns][NT] = {};
      int64_t chain = 0;
      for (int64_t part = 0; part < refinements(coarse); ++part) {
        const Lattice rows = refine(coarse, part);
        for (int64_t n = begin; n < end; ++n) {
          const Block<S, kind, NT> taps{
              call, rows, cols, call.input_plane(n, channel), call.grad_output_plane(n, channel), t, u, columns,
              sums, acc,  chain};
          for_tiles<S, false>(taps, 0, rows.count);
          if (n + 1 == end) taps.flush();
        }
      }
    }
  };

  template <int S, Lanes kind>
  static void filter(const Call& call, int64_t channel, int64_t begin, int64_t end, double* sums) {
    // Fewer sizes than for_pieces has: this kernel is rare, and each size takes as long to compile.
    const Filter<S, kind> taps{call, channel, begin, end, sums};
    int64_t t = 0;
    for (; call.rows.kernel - t >= 7; t += 7) taps.template piece<7>(t);
    for (; call.rows.kernel - t >= 3; t += 3) taps.template piece<3>(t);
    for (; t < call.rows.kernel; ++t) taps.template piece<1>(t);
  }

  int64_t images_, channels_, M_, taps_;
  Axis rows_, cols_;
  int64_t chunks_;  // of images
};

DWCONV_END_TARGET

#endif  // DWCONV_CPU_GRAD_WEIGHT_ROWS_H
