// forward and grad_input, contiguous layout (NCHW), 3x3 at stride 1 with a dilation, where rows of results are as long as
// those of sources. For AVX-512 only.
//
// Method: a plane is one long row, so no row ends in a vector that is mostly empty, and a tap is the same plane moved by a
// constant. The results of a chain lie one dilation of rows apart: tap row t of one is tap row t - 1 of the next, so each
// source is loaded once a column of taps, and masks of the columns that are inside hold for the whole chain. What a chain
// reads and which lanes of it are inside is made once for all planes.
// Bound: FMA, beside loads that straddle cache lines.

template <class T>
struct NchwDilated {
  using A = Acc<T>;
  using Problem = Gather<T>;
  static constexpr int L = kLanes<A>, K = 3, kMost = 6;  // results in a piece
  static constexpr int64_t kPieces = 256;                // of a plane: they stay in L1

  // Neighbours in a chain, as every plane has them.
  struct Piece {
    int64_t source, result;  // of the first: element of the plane, the source's inside or not
    int results;
    uint16_t present, apart;              // positions that are inside in some lanes, and of those: not in all
    uint16_t col[K], row[kMost + K - 1];  // lanes inside, for columns of taps and for positions
    uint16_t stored[kMost];               // lanes of results
  };

  static DWCONV_INLINE_MEMBER Mask<A> mask_of(uint32_t bits) {
    Mask<A> mask = {};
    mask.bits = bits;
    return mask;
  }

  // A mask in its register, straight from memory.
  static DWCONV_INLINE_MEMBER Mask<A> held(const uint16_t& stored) {
    __mmask16 bits = stored;
    asm("kmovw %1, %0" : "=Yk"(bits) : "m"(stored));
    return mask_of(bits);
  }

  // How the planes are cut: chains of `steps` results, a vector of them next to each other.
  struct Plan {
    Lattice rows, cols;
    int64_t width, sources, results, step, vectors, steps, pieces_of_chain = 0, pieces;
    int length = 0;  // results of a piece

    explicit Plan(const Problem& problem) : rows(residue(problem.rows, 0)), cols(residue(problem.cols, 0)) {
      width = problem.cols.results;
      sources = problem.rows.sources * width, results = problem.rows.results * width;
      step = std::min(rows.tap_step * width, std::max<int64_t>(results, 1));
      vectors = ceil_div(step, L);
      steps = ceil_div(results, step);
      // The last piece of a chain may start early, and compute results a second time to the same bits: as few as can be, but
      // a piece has its price.
      for (const int most : {kMost, 4, 3, 2, 1}) {
        const int64_t count = ceil_div(steps, most);
        if (most <= steps && (length == 0 || count * (most + 1) < pieces_of_chain * (length + 1))) {
          length = most, pieces_of_chain = count;
        }
      }
      pieces = steps == 0 ? 0 : vectors * pieces_of_chain;
    }

    Piece piece(int64_t index) const {
      const int64_t first = index / pieces_of_chain * L;
      Piece piece = {};
      piece.results = length;
      const int64_t j = std::min(index % pieces_of_chain * piece.results, steps - piece.results);
      piece.result = first + step * j;
      piece.source = piece.result + rows.source * width + cols.source;
      const auto lanes_of = [&](int64_t lo, int64_t hi) {
        return uint16_t(lanes<A>(lo, std::min(hi, step - first)).bits);
      };
      for (int u = 0; u < K; ++u) {
        const Range across = inside(cols.source + cols.tap_step * u, 1, width);
        for (int64_t row = -(first % width); row < L; row += width) {
          piece.col[u] |= lanes_of(row + across.lo, row + std::min(across.hi, width));
        }
      }
      for (int r = 0; r < piece.results; ++r) piece.stored[r] = lanes_of(0, results - piece.result - step * r);
      for (int i = 0; i < piece.results + K - 1; ++i) {
        const int64_t at = piece.result + rows.source * width + rows.tap_step * width * i;
        piece.row[i] = lanes_of(-at, sources - at);
        piece.present |= uint16_t((piece.row[i] != 0) << i);
        piece.apart |= uint16_t((piece.row[i] != lanes_of(0, L)) << i);
      }
      return piece;
    }
  };

  static int64_t parts(const Problem& problem, const Plan& plan) {
    return bands(plan.pieces, 4, problem.images * problem.channels);
  }

  static int64_t items(Operation operation, const Shape& shape) {
    const Problem problem(operation, shape, {});
    return problem.images * problem.channels * parts(problem, Plan(problem));
  }

  static void run(Operation operation, const Shape& shape, const Buffers& buffers, int64_t begin, int64_t end) {
    if (begin >= end) return;
    const Problem problem(operation, shape, buffers);
    const Plan plan(problem);
    Piece pieces[kPieces];
    for (int64_t i = 0; i < plan.pieces; ++i) pieces[i] = plan.piece(i);
    const int64_t cut = parts(problem, plan);
    const bool large = NchwPlan<T>(problem).large();
    for (int64_t item = begin; item < end; ++item) {
      const int64_t index = item / cut, part = item % cut, channel = index % problem.channels;
      const int64_t from = plan.pieces * part / cut, to = plan.pieces * (part + 1) / cut;
      Weights weights;
      const T* filter = problem.weight + channel * problem.taps + plan.rows.k * K + plan.cols.k;
      for (int t = 0; t < K; ++t) {
        for (int u = 0; u < K; ++u) weights.tap[t][u] = to_acc(filter[t * plan.rows.k_step * K + u * plan.cols.k_step]);
      }
      weights.bias = problem.bias ? to_acc(problem.bias[channel]) : A(0);
      const Plane plane{problem, plan, problem.source + index * plan.sources, problem.result_plane(index),
                        weights, large};
      switch (plan.length) {
        case 1: plane.template compute<1>(pieces + from, pieces + to); break;
        case 2: plane.template compute<2>(pieces + from, pieces + to); break;
        case 3: plane.template compute<3>(pieces + from, pieces + to); break;
        case 4: plane.template compute<4>(pieces + from, pieces + to); break;
        default: plane.template compute<kMost>(pieces + from, pieces + to);
      }
    }
  }

  struct Weights {
    A tap[K][K], bias;
  };

  struct Plane {
    const Problem& problem;
    const Plan& plan;
    const T* source;
    T* result;
    const Weights& weights;
    bool large;  // fetch the lines of the results, too

    template <int R>
    __attribute__((noinline)) void compute(const Piece* piece, const Piece* end) const {
      const int64_t down = plan.rows.tap_step * plan.width, across = plan.cols.tap_step, next_plane = plan.sources;
      Vec<A> weight[K][K];
      DWCONV_UNROLL
      for (int t = 0; t < K; ++t) {
        DWCONV_UNROLL
        for (int u = 0; u < K; ++u) weight[t][u] = broadcast<A>(weights.tap[t][u]), opaque(weight[t][u]);
      }
      const Vec<A> initial = broadcast<A>(weights.bias);
      for (; piece != end; ++piece) {
        Vec<A> acc[R];
        DWCONV_UNROLL
        for (int r = 0; r < R; ++r) acc[r] = initial;
        const T* at = source + piece->source;
        uint32_t present = piece->present;
        Mask<A> col[K];
        DWCONV_UNROLL
        for (int u = 0; u < K; ++u) col[u] = held(piece->col[u]);
        DWCONV_UNROLL
        for (int i = 0; i < R + K - 1; ++i) {
          opaque(at), opaque(present);
          if (present & (1u << i)) {
            if (__builtin_expect(piece->apart & (1u << i), 0)) {
              const Mask<A> both[K] = {mask_of(piece->col[0] & piece->row[i]), mask_of(piece->col[1] & piece->row[i]),
                                       mask_of(piece->col[2] & piece->row[i])};
              add(acc, weight, i, at, across, both);
            } else {
              add(acc, weight, i, at, across, col);
            }
            __builtin_prefetch(at + next_plane);
          }
          at += down;
        }
        activate<A>(acc, problem.activation);
        T* to = result + piece->result;
        DWCONV_UNROLL
        for (int r = 0; r < R; ++r) {
          store(to, acc[r], mask_of(piece->stored[r]));
          if (large) __builtin_prefetch(to + plan.results, 1);
          advance(to, plan.step);
        }
      }
    }

    // Position i of a piece.
    template <int R>
    static DWCONV_INLINE_MEMBER void add(Vec<A> (&acc)[R], const Vec<A> (&weight)[K][K], int i, const T* at,
                                         int64_t across, const Mask<A> (&inside)[K]) {
      DWCONV_UNROLL
      for (int u = 0; u < K; ++u) {
        const Vec<A> value = load(at, inside[u]);
        DWCONV_UNROLL
        for (int t = 0; t < K; ++t) {
          const int r = reached<R, 1>(i, t);
          if (r >= 0) acc[r] = add_product<A>(acc[r], weight[t][u], value, inside[u]);
        }
        advance(at, across);
      }
    }
  };

  static const char* supports(Operation operation, const Shape& s) {
    const Problem problem(operation, s, {});
    if (s.KH != K || s.KW != K) return "it takes 3x3";
    if (s.stride_h != 1 || s.stride_w != 1) return "the stride is not 1";
    if (s.dilation_h == 1 && s.dilation_w == 1) return "there is no dilation";
    if (s.M != 1) return "there is a channel multiplier";
    if (problem.cols.results != problem.cols.sources) return "rows of results and of sources differ in length";
    if (problem.rows.results * problem.cols.results <= 2 * L) return "planes are small";
    if (Plan(problem).pieces > kPieces) return "planes are large";
    return nullptr;
  }
};

template <class T, Operation operation>
struct NchwDilatedKernel {
  static int64_t items(const Shape& shape) { return NchwDilated<T>::items(operation, shape); }
  static void run(const Shape& shape, const Buffers& buffers, int64_t begin, int64_t end) {
    NchwDilated<T>::run(operation, shape, buffers, begin, end);
  }
  static const char* supports(const Shape& shape) { return NchwDilated<T>::supports(operation, shape); }
  static constexpr int64_t (*workspace_bytes)(const Shape&) = nullptr;
  static constexpr Stage stages[] = {{items, run}};
};
template <class T>
using NchwForwardDilated = NchwDilatedKernel<T, Operation::forward>;
template <class T>
using NchwGradInputDilated = NchwDilatedKernel<T, Operation::grad_input>;
