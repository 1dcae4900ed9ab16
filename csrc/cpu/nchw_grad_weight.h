// grad_weight and the bias gradient, contiguous layout (NCHW), any geometry.
//
// Method: as in nchw_gather.h a vector runs along a row of grad_output and a tile goes down R of its rows, which stay in
// registers; for each kernel column the tile walks the input rows, and adds into one accumulator vector per tap. The
// accumulators of a block of taps live in L1. They are flushed into f64 sums, one a tap, before a lane has added more
// than kChain products, so that the error does not grow with the size of the problem. Work is split by filter and, when
// there are few, by groups of images; a last stage adds the groups up in order.
// Bound: FMA, and the accumulators' way through L1 at 3x3.

template <class T>
struct NchwGradWeight {
  using A = Acc<T>;
  static constexpr int L = kLanes<A>;
  static constexpr int kColumns = 8;  // kernel columns in a block of taps

  struct Problem {
    const T* input;
    const T* grad_output;
    int64_t images, channels, M, taps;
    Axis rows, cols;

    Problem(const Shape& s, const Buffers& b)
        : input(static_cast<const T*>(b.input)),
          grad_output(static_cast<const T*>(b.grad_output)),
          images(s.N),
          channels(s.out_channels()),
          M(s.M),
          taps(s.taps()),
          rows(vertical_axis(Operation::grad_weight, s)),
          cols(horizontal_axis(Operation::grad_weight, s)) {}

    const T* input_plane(int64_t n, int64_t channel) const {
      return input + (n * (channels / M) + channel / M) * rows.sources * cols.sources;
    }
    const T* grad_output_plane(int64_t n, int64_t channel) const {
      return grad_output + (n * channels + channel) * rows.results * cols.results;
    }
    int64_t chunks() const { return bands(images, 1, channels); }
    int64_t images_per_chunk() const { return ceil_div(images, chunks()); }
    int64_t sums() const { return taps + 1; }  // of one filter, the bias last
  };

  // NT rows of taps t, t + 1, ... and up to kColumns columns u, u + 1, ... of one filter.
  template <int S, Lanes kind, int NT>
  struct Block {
    const Problem& problem;
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
      const int64_t width = problem.cols.sources;
      const int64_t row = rows.source + rows.source_period * j + rows.tap_step * t;
      const Range range = inside(row, rows.tap_step, problem.rows.sources);
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
          if (mask.lo > 0 || mask.hi < count) {
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
          sums[(t + tap) * problem.cols.kernel + u + i] += sum<A>(acc[i][tap]);
          acc[i][tap] = Vec<A>{};
        }
      }
      chain = 0;
    }
  };

  // The images [begin, end) of one filter.
  template <int S, Lanes kind>
  struct Filter {
    const Problem& problem;
    int64_t channel, begin, end;
    double* sums;

    template <int NT>
    DWCONV_INLINE_MEMBER void piece(int64_t t) const {
      for (int64_t u = 0; u < problem.cols.kernel; u += kColumns) block<NT>(t, u);
    }

    template <int NT>
    void block(int64_t t, int64_t u) const {
      const Lattice coarse = residue(problem.rows, 0), cols = residue(problem.cols, 0);
      const int64_t columns = std::min<int64_t>(kColumns, problem.cols.kernel - u);
      Vec<A> acc[kColumns][NT] = {};
      int64_t chain = 0;
      for (int64_t part = 0; part < refinements(coarse); ++part) {
        const Lattice rows = refine(coarse, part);
        for (int64_t n = begin; n < end; ++n) {
          const Block<S, kind, NT> taps{problem,
                                        rows,
                                        cols,
                                        problem.input_plane(n, channel),
                                        problem.grad_output_plane(n, channel),
                                        t,
                                        u,
                                        columns,
                                        sums,
                                        acc,
                                        chain};
          for_tiles<S, false>(taps, 0, rows.count);
          if (n + 1 == end) taps.flush();
        }
      }
    }
  };

  template <int S, Lanes kind>
  static void filter(const Problem& problem, int64_t channel, int64_t begin, int64_t end, double* sums) {
    // Fewer sizes than for_pieces has: this kernel is rare, and each size takes as long to compile.
    const Filter<S, kind> taps{problem, channel, begin, end, sums};
    int64_t t = 0;
    for (; problem.rows.kernel - t >= 7; t += 7) taps.template piece<7>(t);
    for (; problem.rows.kernel - t >= 3; t += 3) taps.template piece<3>(t);
    for (; t < problem.rows.kernel; ++t) taps.template piece<1>(t);
  }

  // The sum of `size` elements, in f64 over vectors of at most kChain each.
  static double plane_sum(const T* p, int64_t size) {
    double total = 0;
    for (int64_t first = 0; first < size; first += kChain<A> * L) {
      const int64_t last = std::min(size, first + kChain<A> * L);
      Vec<A> acc = {};
      for (int64_t i = first; i < last; i += L) acc += load(p + i, lanes<A>(0, last - i));
      total += sum<A>(acc);
    }
    return total;
  }

  static int64_t workspace_bytes(const Shape& shape) {
    return items(shape) * Problem(shape, {}).sums() * int64_t(sizeof(double));
  }

  // Stage 1, an item the images of one chunk for one filter.
  static int64_t items(const Shape& shape) {
    const Problem problem(shape, {});
    return problem.channels * problem.chunks();
  }

  static void run(const Shape& shape, const Buffers& buffers, int64_t begin, int64_t end) {
    const Problem problem(shape, buffers);
    const Lattice rows = refine(residue(problem.rows, 0), 0), cols = residue(problem.cols, 0);
    for (int64_t item = begin; item < end; ++item) {
      const int64_t channel = item / problem.chunks(), chunk = item % problem.chunks();
      const int64_t first = chunk * problem.images_per_chunk();
      const int64_t last = std::min(problem.images, first + problem.images_per_chunk());
      double* sums = static_cast<double*>(buffers.workspace) + item * problem.sums();
      std::fill_n(sums, problem.sums(), 0.0);
      if (rows.reuse() == 1 && cols.source_period == 1) {
        filter<1, Lanes::contiguous>(problem, channel, first, last, sums);
      } else if (rows.reuse() == 2 && cols.source_period == 2) {
        filter<2, Lanes::even>(problem, channel, first, last, sums);
      } else {
        filter<0, Lanes::strided>(problem, channel, first, last, sums);
      }
      if (!buffers.grad_bias) continue;
      for (int64_t n = first; n < last; ++n) {
        sums[problem.taps] +=
            plane_sum(problem.grad_output_plane(n, channel), problem.rows.results * problem.cols.results);
      }
    }
  }

  // Stage 2, an item a filter: add its chunks up, in order.
  static int64_t filters(const Shape& shape) { return shape.out_channels(); }

  static void finish(const Shape& shape, const Buffers& buffers, int64_t begin, int64_t end) {
    const Problem problem(shape, buffers);
    const double* workspace = static_cast<const double*>(buffers.workspace);
    for (int64_t channel = begin; channel < end; ++channel) {
      for (int64_t tap = 0; tap < problem.sums(); ++tap) {
        double total = 0;
        for (int64_t chunk = 0; chunk < problem.chunks(); ++chunk) {
          total += workspace[(channel * problem.chunks() + chunk) * problem.sums() + tap];
        }
        if (tap < problem.taps) {
          from_acc(A(total), static_cast<T*>(buffers.result) + channel * problem.taps + tap);
        } else if (buffers.grad_bias) {
          from_acc(A(total), static_cast<T*>(buffers.grad_bias) + channel);
        }
      }
    }
  }

  static const char* supports(const Shape&) { return nullptr; }
  static constexpr Stage stages[] = {{items, run}, {filters, finish}};
};
