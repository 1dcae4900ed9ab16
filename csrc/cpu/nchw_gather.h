// forward and grad_input, contiguous layout (NCHW), any geometry.
//
// Method: a vector runs along a row of results, a tile goes down R rows of them. The taps of one kernel column are held
// as broadcast weights while the tile walks its source rows, each loaded once (tile.h); columns follow each other in a
// rolled loop, so that nothing spills at any kernel size. At the left and right border a mask stands for the padding,
// at the top and bottom the walk is shorter. Strided columns: forward loads every second element, grad_input computes
// the residues of the row apart and interleaves them as it stores.
// Rows of at most half a vector (the 7x7 maps at the end of a network) would waste most lanes: on AVX-512, whose masked
// loads and two-source permutes make it cheap, a vector then holds the rows of two planes, and weights of both.
// Bound: bytes for 3x3, FMA from 7x7 on.

template <class T>
struct NchwGather {
  using A = Acc<T>;
  using Problem = Gather<T>;
  static constexpr int L = kLanes<A>;

  // What a kernel column means for one strip of results: where its sources begin, what to load of them, and which
  // lanes then are inside the input.
  struct Column {
    int64_t first;
    Mask<A> loaded, inner;
    bool border;  // padding takes some lanes
  };

  // The columns of every strip of a plane: kept for all planes as far as they fit, else computed when asked for.
  class Columns {
   public:
    // Residues that are interleaved have the strips of the longest, `results` long.
    Columns(const Lattice& cols_, int64_t results, int64_t width_, bool paired_)
        : cols(cols_), width(width_), paired(paired_) {
      for (int i = 0; paired && i < L; ++i) {
        index[i] = int(i < cols.count ? i * cols.source_period : L + (i - cols.count) * cols.source_period);
      }
      const int64_t strips = ceil_div(results, L);
      fits = cols.taps <= kKept && strips <= kKept && strips * cols.taps <= kKept;
      for (int64_t i = 0; fits && i < strips * cols.taps; ++i) kept[i] = compute(i / cols.taps * L, i % cols.taps);
    }

    // Of kernel column u, for the strip whose first result is `col`.
    DWCONV_INLINE_MEMBER Column at(int64_t col, int64_t u) const {
      return fits ? kept[col / L * cols.taps + u] : compute(col, u);
    }

    Column compute(int64_t col, int64_t u) const {
      const int64_t first = cols.source + cols.source_period * col + cols.tap_step * u;
      const int64_t count = std::min<int64_t>(L, cols.count - col);
      const Range valid = inside(first, cols.source_period, width);
      const Mask<A> mask = lanes<A>(valid.lo, std::min(valid.hi, count));
      const bool border = mask.lo > 0 || mask.hi < count;
#if DWCONV_VEC_BYTES == 64
      if (paired) {
        const int64_t lo = mask.lo * cols.source_period, hi = (mask.hi - 1) * cols.source_period + 1;
        return {first, lanes<A>(lo, hi), mask.twice(int(count)), border};
      }
#endif
      return {first, mask, mask, border};
    }

    Lattice cols;
    Ints<A> index = {};  // of paired lanes

   private:
    static constexpr int64_t kKept = 64;
    int64_t width;
    bool paired, fits;
    Column kept[kKept];
  };

  // One vector-wide strip down one result plane.
  template <int S, Lanes kind>
  struct Strip {
    const Problem& problem;
    const T* source;  // the image
    T* result;        // the plane
    int64_t channel;
    const Lattice& rows;
    const Columns* columns;  // one residue, or two to interleave
    int64_t residues;
    int64_t col;  // the first result, counted on the lattice of columns
    // Paired: how far the second plane of each array is from the first.
    int64_t other_source, other_filter, other_result;

    template <int R>
    struct Tile {
      const Strip& strip;
      const T* source;  // the plane
      const T* filter;
      const Columns& columns;
      int64_t j;
      Vec<A> (&acc)[R];

      template <int NT>
      DWCONV_INLINE_MEMBER void piece(int64_t t) const {
        const Problem& problem = strip.problem;
        const Lattice& rows = strip.rows;
        const Lattice& cols = columns.cols;
        const int64_t width = problem.cols.sources;
        const int64_t row = rows.source + rows.source_period * j + rows.tap_step * t;
        const Range range = inside(row, rows.tap_step, problem.rows.sources);
        const T* tap = filter + (rows.k + rows.k_step * t) * problem.cols.kernel + cols.k;
        const int64_t next_row = rows.k_step * problem.cols.kernel;
        for (int64_t u = 0; u < cols.taps; ++u, tap += cols.k_step) {
          const Column column = columns.at(strip.col, u);
          if (column.inner.empty()) continue;
          Vec<A> weight[NT];
          DWCONV_UNROLL
          for (int i = 0; i < NT; ++i) weight[i] = strip.weight(tap + next_row * i, cols);
          if (column.border) {
            // Padding must not turn an infinite weight into NaN.
            DWCONV_UNROLL
            for (int i = 0; i < NT; ++i) weight[i] = keep<A>(weight[i], column.inner);
          }
          const int64_t step = kind == Lanes::paired ? strip.other_source : cols.source_period;
          const Source<T, kind> positions{source + row * width + column.first, rows.tap_step * width, column.loaded,
                                          step, columns.index};
          correlate<ToResults, R, NT, S>(acc, weight, positions, range);
        }
      }
    };

    DWCONV_INLINE_MEMBER Vec<A> weight(const T* tap, const Lattice& cols) const {
      return lanes_of_planes(to_acc(*tap), to_acc(tap[kind == Lanes::paired ? other_filter : 0]), cols);
    }

    // The first value in the lanes of the first plane, the second in the others.
    DWCONV_INLINE_MEMBER static Vec<A> lanes_of_planes(A first, A second, const Lattice& cols) {
      if constexpr (kind != Lanes::paired) return broadcast<A>(first);
      return iota<A>() < int(cols.count) ? broadcast<A>(first) : broadcast<A>(second);
    }

    template <int R>
    DWCONV_INLINE_MEMBER void tile(int64_t j) const {
      Vec<A> sums[2][R];
      for (int64_t p = 0; p < residues; ++p) {
        Vec<A> initial = {};
        if (problem.bias) {
          const T* bias = problem.bias + channel;
          initial = lanes_of_planes(to_acc(bias[0]), to_acc(bias[kind == Lanes::paired]), columns[p].cols);
        }
        Vec<A> acc[R];
        DWCONV_UNROLL
        for (int r = 0; r < R; ++r) acc[r] = initial;
        for (int64_t f = 0; f < problem.fan_in; ++f) {
          const T* plane = source + problem.source_channel(channel, f) * problem.rows.sources * problem.cols.sources;
          const T* filter = problem.weight + problem.filter(channel, f) * problem.taps;
          for_pieces(Tile<R>{*this, plane, filter, columns[p], j, acc}, rows.taps);
        }
        activate<A>(acc, problem.activation);
        DWCONV_UNROLL
        for (int r = 0; r < R; ++r) sums[p][r] = acc[r];
      }
      for (int r = 0; r < R; ++r) {
        store_row(result + (rows.first + rows.period * (j + r)) * problem.cols.results, sums[0][r], sums[1][r]);
      }
    }

    DWCONV_INLINE_MEMBER void store_row(T* row, Vec<A> first, Vec<A> second) const {
      const Lattice& cols = columns->cols;
      if constexpr (kind == Lanes::paired) {
        store_pair(row, first, second);
      } else if (residues == 2) {
        Vec<A> low, high;
        interleave<A>(first, second, low, high, LaneIndices<A>{});
        const int64_t left = problem.cols.results - 2 * col;
        store(row + 2 * col, low, lanes<A>(0, left));
        if (left > L) store(row + 2 * col + L, high, lanes<A>(0, left - L));
      } else if (cols.period == 1) {
        store(row + col, first, lanes<A>(0, cols.count - col));
      } else {
        store_lanes(row + cols.first + cols.period * col, cols.period, first, lanes<A>(0, cols.count - col));
      }
    }

#if DWCONV_VEC_BYTES == 64
    DWCONV_INLINE_MEMBER void store_pair(T* row, Vec<A> first, Vec<A> second) const {
      const int count = int(columns->cols.count), results = int(problem.cols.results);
      if (residues == 2) {
        const Ints<A> lane = iota<A>() / 2, residue = (iota<A>() & 1) * L;
        const int other = int(columns[1].cols.count);
        store(row, permute<A>(first, second, lane + residue), lanes<A>(0, results));
        store(row + other_result,
              permute<A>(first, second, lane + residue + ((iota<A>() & 1) ? Ints<A>{} + other : Ints<A>{} + count)),
              lanes<A>(0, results));
      } else {
        store(row, first, lanes<A>(0, count));
        store(row + other_result - count, first, lanes<A>(count, 2 * count));
      }
    }
#endif
  };

  template <int S, Lanes kind>
  static void strips(const Problem& problem, const T* source, T* result, int64_t channel, const Lattice& rows,
                     const Columns* columns, int64_t residues, int64_t begin, int64_t end) {
    const int64_t source_size = problem.rows.sources * problem.cols.sources;
    const int64_t other_source =
        (problem.source_channel(channel + 1, 0) - problem.source_channel(channel, 0)) * source_size;
    const int64_t other_filter = (problem.filter(channel + 1, 0) - problem.filter(channel, 0)) * problem.taps;
    for (int64_t col = 0; col < columns->cols.count; col += L) {
      const Strip<S, kind> strip{problem,
                                 source,
                                 result,
                                 channel,
                                 rows,
                                 columns,
                                 residues,
                                 col,
                                 other_source,
                                 other_filter,
                                 problem.rows.results * problem.cols.results};
      for_tiles<S, true>(strip, begin, end);
    }
  }

  // Few, large planes are cut into bands of rows.
  static int64_t bands_of_plane(const Problem& problem, const Lattices& rows) {
    return bands(problem.rows.results / rows.count(), 2 * kTile, problem.images * problem.channels);
  }

  // An item is a band of a result plane, or a pair of planes, or the one left over.
  template <bool paired>
  static int64_t items(Map map, const Shape& shape) {
    const Problem problem(map, shape, {});
    if (paired) return problem.images * ceil_div(problem.channels, 2);
    return problem.images * problem.channels * bands_of_plane(problem, Lattices(problem.rows, true));
  }

  template <bool paired>
  static void run(Map map, const Shape& shape, const Buffers& buffers, int64_t begin, int64_t end) {
    const Problem problem(map, shape, buffers);
    const Lattices rows(problem.rows, true);
    const int64_t together = problem.transposed && problem.cols.stride == 2 ? 2 : 1;
    for (int64_t r = 0; r < residues(problem.cols); r += together) {
      const Lattice first = residue(problem.cols, r), second = residue(problem.cols, r + together - 1);
      const int64_t results = first.count, width = problem.cols.sources;
      const Columns columns[2] = {{first, results, width, false}, {second, results, width, false}};
      if constexpr (paired) {
        const Columns pairs[2] = {{first, results, width, true}, {second, results, width, true}};
        run_pairs(problem, rows, columns, pairs, together, begin, end);
      } else {
        run_bands(problem, rows, columns, together, begin, end);
      }
    }
  }

  static void run_bands(const Problem& problem, const Lattices& all_rows, const Columns* columns, int64_t residues,
                        int64_t begin, int64_t end) {
    const int64_t parts = bands_of_plane(problem, all_rows);
    for (int64_t item = begin; item < end; ++item) {
      const int64_t plane = item / parts, band = item % parts;
      for (int64_t i = 0; i < all_rows.count(); ++i) {
        Lattice spare;
        const Lattice& rows = all_rows.at(i, spare);
        const int64_t length = parts == 1 ? rows.count : ceil_div(ceil_div(rows.count, parts), kTile) * kTile;
        const int64_t first = band * length, last = std::min(rows.count, first + length);
        if (first < last) rows_of_plane(problem, plane, rows, columns, residues, first, last);
      }
    }
  }

  static void rows_of_plane(const Problem& problem, int64_t plane, const Lattice& rows, const Columns* columns,
                            int64_t residues, int64_t first, int64_t last) {
    const auto walk = rows.reuse() == 1 && columns->cols.source_period == 1   ? strips<1, Lanes::contiguous>
                      : rows.reuse() == 2 && columns->cols.source_period == 2 ? strips<2, Lanes::even>
                                                                              : strips<0, Lanes::strided>;
    walk(problem, problem.source_image(plane / problem.channels), problem.result_plane(plane), plane % problem.channels,
         rows, columns, residues, first, last);
  }

  static void run_pairs(const Problem& problem, const Lattices& all_rows, const Columns* columns, const Columns* pairs,
                        int64_t residues, int64_t begin, int64_t end) {
    const int64_t per_image = ceil_div(problem.channels, 2);
    for (int64_t item = begin; item < end; ++item) {
      const int64_t n = item / per_image, channel = item % per_image * 2, plane = n * problem.channels + channel;
      for (int64_t i = 0; i < all_rows.count(); ++i) {
        Lattice spare;
        const Lattice& rows = all_rows.at(i, spare);
        if (channel + 1 == problem.channels) {
          rows_of_plane(problem, plane, rows, columns, residues, 0, rows.count);
        } else {
          const auto walk = rows.reuse() == 1   ? strips<1, Lanes::paired>
                            : rows.reuse() == 2 ? strips<2, Lanes::paired>
                                                : strips<0, Lanes::paired>;
          walk(problem, problem.source_image(n), problem.result_plane(plane), channel, rows, pairs, residues, 0,
               rows.count);
        }
      }
    }
  }

  static const char* supports_pairs(Map map, const Shape& shape) {
    const Axis cols = horizontal_axis(map, shape);
    if (cols.transposed && cols.stride > 2) return "it interleaves at most two residues of a row";
    for (int64_t r = 0; r < residues(cols); ++r) {
      const Lattice lattice = residue(cols, r);
      if (2 * lattice.count > L || (lattice.count - 1) * lattice.source_period >= L) {
        return "two rows of the map do not fit into one vector";
      }
    }
    return nullptr;
  }
};

template <class T, Map map, bool paired>
struct NchwGatherKernel {
  static int64_t items(const Shape& shape) { return NchwGather<T>::template items<paired>(map, shape); }
  static void run(const Shape& shape, const Buffers& buffers, int64_t begin, int64_t end) {
    NchwGather<T>::template run<paired>(map, shape, buffers, begin, end);
  }
  static const char* supports(const Shape& shape) {
    return paired ? NchwGather<T>::supports_pairs(map, shape) : nullptr;
  }
  static constexpr int64_t (*workspace_bytes)(const Shape&) = nullptr;
  static constexpr Stage stages[] = {{items, run}};
};
template <class T>
using NchwForward = NchwGatherKernel<T, Map::forward, false>;
template <class T>
using NchwGradInput = NchwGatherKernel<T, Map::grad_input, false>;
template <class T>
using NchwForwardPairs = NchwGatherKernel<T, Map::forward, true>;
template <class T>
using NchwGradInputPairs = NchwGatherKernel<T, Map::grad_input, true>;
