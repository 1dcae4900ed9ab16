// forward and grad_input, contiguous layout (NCHW), any geometry.
//
// Method: a vector runs along a row of results, a tile goes down R rows of them. The taps of one kernel column are held
// as broadcast weights while the tile walks its source rows, each loaded once (tile.h); columns follow each other in a
// rolled loop, so that nothing spills at any kernel size. At the left and right border a mask stands for the padding,
// at the top and bottom the walk is shorter. Strided columns: forward loads every second element, grad_input computes
// the residues of the row apart and interleaves them as it stores.
// Bound: bytes for 3x3, FMA from 7x7 on. A row shorter than a vector wastes the other lanes.

template <class T>
struct NchwGather {
  using A = Acc<T>;
  using Problem = Gather<T>;
  static constexpr int L = kLanes<A>;

  // One vector-wide strip down one result plane.
  template <int S, Lanes kind>
  struct Strip {
    const Problem& problem;
    const T* source;  // the image
    T* result;        // the plane
    int64_t channel;
    const Lattice& rows;
    const Lattice* cols;  // one residue, or two to interleave
    int64_t residues;
    int64_t col;  // the first column, counted on the lattice

    template <int R>
    struct Tile {
      const Strip& strip;
      const T* source;  // the plane
      const T* filter;
      const Lattice& cols;
      int64_t j;
      Vec<A> (&acc)[R];

      template <int NT>
      DWCONV_INLINE_MEMBER void piece(int64_t t) const {
        const Problem& problem = strip.problem;
        const Lattice& rows = strip.rows;
        const int64_t width = problem.cols.sources;
        const int64_t row = rows.source + rows.source_period * j + rows.tap_step * t;
        const Range range = inside(row, rows.tap_step, problem.rows.sources);
        const T* column = filter + (rows.k + rows.k_step * t) * problem.cols.kernel + cols.k;
        const int64_t next_tap = rows.k_step * problem.cols.kernel;
        const int64_t count = std::min<int64_t>(L, cols.count - strip.col);
        int64_t first = cols.source + cols.source_period * strip.col;
        for (int64_t u = 0; u < cols.taps; ++u, first += cols.tap_step, column += cols.k_step) {
          const Range valid = inside(first, cols.source_period, width);
          const Mask<A> mask = lanes<A>(valid.lo, std::min(valid.hi, count));
          if (mask.empty()) continue;
          Vec<A> weight[NT];
          DWCONV_UNROLL
          for (int i = 0; i < NT; ++i) weight[i] = broadcast<A>(to_acc(column[next_tap * i]));
          // Padding must not turn an infinite weight into NaN.
          if (mask.lo > 0 || mask.hi < count) {
            DWCONV_UNROLL
            for (int i = 0; i < NT; ++i) weight[i] = keep<A>(weight[i], mask);
          }
          const Source<T, kind> positions{source + row * width + first, rows.tap_step * width, mask, cols.source_period,
                                          Ints<A>{}};
          correlate<ToResults, R, NT, S>(acc, weight, positions, range);
        }
      }
    };

    template <int R>
    DWCONV_INLINE_MEMBER void tile(int64_t j) const {
      const Vec<A> initial = problem.bias ? broadcast<A>(to_acc(problem.bias[channel])) : Vec<A>{};
      Vec<A> sums[2][R];
      for (int64_t p = 0; p < residues; ++p) {
        Vec<A> acc[R];
        DWCONV_UNROLL
        for (int r = 0; r < R; ++r) acc[r] = initial;
        for (int64_t f = 0; f < problem.fan_in; ++f) {
          const T* plane = source + problem.source_channel(channel, f) * problem.rows.sources * problem.cols.sources;
          const T* filter = problem.weight + problem.filter(channel, f) * problem.taps;
          for_pieces(Tile<R>{*this, plane, filter, cols[p], j, acc}, rows.taps);
        }
        DWCONV_UNROLL
        for (int r = 0; r < R; ++r) sums[p][r] = acc[r];
      }
      for (int r = 0; r < R; ++r) {
        store_row(result + (rows.first + rows.period * (j + r)) * problem.cols.results, sums[0][r], sums[1][r]);
      }
    }

    DWCONV_INLINE_MEMBER void store_row(T* row, Vec<A> first, Vec<A> second) const {
      if (residues == 2) {
        Vec<A> low, high;
        interleave<A>(first, second, low, high, LaneIndices<A>{});
        const int64_t left = problem.cols.results - 2 * col;
        store(row + 2 * col, low, lanes<A>(0, left));
        if (left > L) store(row + 2 * col + L, high, lanes<A>(0, left - L));
      } else if (cols->period == 1) {
        store(row + col, first, lanes<A>(0, cols->count - col));
      } else {
        store_lanes(row + cols->first + cols->period * col, cols->period, first, lanes<A>(0, cols->count - col));
      }
    }
  };

  template <int S, Lanes kind>
  static void strips(const Problem& problem, const T* source, T* result, int64_t channel, const Lattice& rows,
                     const Lattice* cols, int64_t residues, int64_t begin, int64_t end) {
    for (int64_t col = 0; col < cols->count; col += L) {
      for_tiles<S, true>(Strip<S, kind>{problem, source, result, channel, rows, cols, residues, col}, begin, end);
    }
  }

  static int64_t row_classes(const Axis& rows) { return residues(rows) * refinements(residue(rows, 0)); }

  static int64_t bands_of_plane(const Problem& problem) {
    return bands(problem.rows.results / row_classes(problem.rows), 2 * kTile, problem.images * problem.channels);
  }

  static int64_t items(Map map, const Shape& shape) {
    const Problem problem(map, shape, {});
    return problem.images * problem.channels * bands_of_plane(problem);
  }

  static void run(Map map, const Shape& shape, const Buffers& buffers, int64_t begin, int64_t end) {
    const Problem problem(map, shape, buffers);
    const int64_t parts = bands_of_plane(problem);
    for (int64_t item = begin; item < end; ++item) {
      const int64_t plane = item / parts, band = item % parts;
      const int64_t n = plane / problem.channels, channel = plane % problem.channels;
      const T* source = problem.source + n * problem.source_channels * problem.rows.sources * problem.cols.sources;
      T* result = problem.result + plane * problem.rows.results * problem.cols.results;
      for (int64_t r = 0; r < residues(problem.rows); ++r) {
        const Lattice coarse = residue(problem.rows, r);
        for (int64_t part = 0; part < refinements(coarse); ++part) {
          const Lattice rows = refine(coarse, part);
          const int64_t length = ceil_div(ceil_div(rows.count, parts), kTile) * kTile;
          const int64_t first = band * length, last = std::min(rows.count, first + length);
          if (first < last) columns(problem, source, result, channel, rows, first, last);
        }
      }
    }
  }

  static void columns(const Problem& problem, const T* source, T* result, int64_t channel, const Lattice& rows,
                      int64_t begin, int64_t end) {
    const bool interleaved = problem.transposed && problem.cols.stride == 2;
    for (int64_t r = 0; r < residues(problem.cols); r += 1 + interleaved) {
      const Lattice cols[2] = {residue(problem.cols, r), residue(problem.cols, r + interleaved)};
      const auto walk = rows.reuse() == 1 && cols->source_period == 1   ? strips<1, Lanes::contiguous>
                        : rows.reuse() == 2 && cols->source_period == 2 ? strips<2, Lanes::even>
                                                                        : strips<0, Lanes::strided>;
      walk(problem, source, result, channel, rows, cols, 1 + interleaved, begin, end);
    }
  }
};

template <class T, Map map>
struct NchwGatherKernel {
  static int64_t items(const Shape& shape) { return NchwGather<T>::items(map, shape); }
  static void run(const Shape& shape, const Buffers& buffers, int64_t begin, int64_t end) {
    NchwGather<T>::run(map, shape, buffers, begin, end);
  }
  static const char* supports(const Shape&) { return nullptr; }
  static constexpr int64_t (*workspace_bytes)(const Shape&) = nullptr;
  static constexpr Stage stages[] = {{items, run}};
};
template <class T>
using NchwForward = NchwGatherKernel<T, Map::forward>;
template <class T>
using NchwGradInput = NchwGatherKernel<T, Map::grad_input>;
