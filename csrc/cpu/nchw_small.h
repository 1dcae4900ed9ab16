// forward and grad_input, contiguous layout (NCHW), 3x3, 5x5 and 7x7 at stride 1 on planes of 7 to 16 rows that fit into
// a vector each: the 14x14, 10x10 and 7x7 planes at the end of a network. For AVX-512 only.
//
// Method: the inner loop of nchw_rows.h with whole planes in registers, and a walk that makes everything that does not
// depend on the plane before it begins. Rows of at most half a vector go by two: neighbouring rows are neighbours in
// memory, and where sources are as wide as results that is so for every tap. A vector loaded there is two rows, as if the
// plane had a stride of 2; masks keep taps out of the other row. 16-bit types are converted by each load.
// Bound: FMA; loads that straddle cache lines at 3x3.

template <class T>
struct NchwSmall {
  using A = Acc<T>;
  using Problem = Gather<T>;
  static constexpr int L = kLanes<A>;
  static constexpr int64_t kAhead = 8192 / sizeof(T);  // elements that are fetched ahead

  static DWCONV_INLINE_MEMBER Mask<A> mask_of(uint16_t bits) {
    Mask<A> mask = {};
    mask.bits = bits;
    return mask;
  }

  // What R vectors of G rows of results, from row `first` on, read of any plane, for K columns of taps.
  template <int K, int G, int R>
  struct Tile {
    static constexpr int kRows = kPositions<R, K, G>;
    // The positions of which all rows are inside if the plane passes by_two().
    static constexpr bool middle(int i) { return G == 1 || (i >= K - 1 && i < kRows - K); }

    int64_t first;
    uint32_t present = 0;  // positions that have a row inside
    // Lanes inside where all rows of a position are, and for each position; as wide as a mask register is loaded.
    uint16_t whole[K] = {}, edge[K][kRows] = {};

    Tile(const Lattice& rows, const Lattice& cols, const Problem& problem, int64_t first_) : first(first_) {
      for (int u = 0; u < K; ++u) {
        const Range across = inside(cols.source + u, 1, problem.cols.sources);
        const uint32_t row = lanes<A>(across.lo, std::min(across.hi, cols.count)).bits;
        for (int g = 0; g < G; ++g) whole[u] = uint16_t(whole[u] | row << (g * cols.count));
        for (int i = 0; i < kRows; ++i) {
          for (int g = 0; g < G; ++g) {
            const int64_t source = rows.source + first + i + g;
            if (source < 0 || source >= problem.rows.sources) continue;
            edge[u][i] = uint16_t(edge[u][i] | row << (g * cols.count));
            present |= 1u << i;
          }
        }
      }
    }

    // From the first source, whether inside or not, and the tap that meets it.
    DWCONV_INLINE_MEMBER void add(Vec<A> (&acc)[R], const T* source, int64_t pitch, const T* taps, int64_t across,
                                  int64_t down) const {
      for (int u = 0; u < K; ++u, ++source, taps += across) {
        Vec<A> weight[K];
        const T* tap = taps;
        DWCONV_UNROLL
        for (int t = 0; t < K; ++t, tap += down) weight[t] = broadcast<A>(to_acc(*tap));
        Mask<A> all = mask_of(whole[u]);
        pin<A>(all);
        uint32_t bits = present;
        asm volatile("" : "+r"(bits));  // or they would be taken apart before the loop, and spilled
        const T* row = source;
        DWCONV_UNROLL
        for (int i = 0; i < kRows; ++i) {
          if (bits >> i & 1) {
            const Mask<A> mask = middle(i) ? all : mask_of(edge[u][i]);
            const Vec<A> value = load(row, mask);
            DWCONV_UNROLL
            for (int t = 0; t < K; ++t) {
              const int r = reached<R, G>(i, t);
              if (r >= 0) acc[r] = add_product<A>(acc[r], weight[t], value, mask);
            }
          }
          advance(row, pitch);
        }
      }
    }
  };

  template <int K, int G, int R>
  static __attribute__((noinline)) void planes(const Problem& problem, int64_t begin, int64_t end) {
    const Lattice rows = residue(problem.rows, 0), cols = residue(problem.cols, 0);
    const int64_t height = rows.count, width = cols.count, pitch = problem.cols.sources;
    const int64_t source_plane = problem.rows.sources * pitch;
    // The second one computes some rows again, to the same bits.
    const Tile<K, G, R> tiles[2] = {{rows, cols, problem, 0}, {rows, cols, problem, std::max<int64_t>(0, height - R)}};
    const int count = height > R * G ? 2 : 1;
    const Mask<A> vector = lanes<A>(0, G * width),
                  last = lanes<A>(0, std::min(G * width, (height - G * (R - 1)) * width));
    const bool large = NchwPlan<T>(problem).large();
    int64_t channel = begin % problem.channels;
    for (int64_t item = begin; item < end; ++item) {
      const T* taps = problem.weight + channel * problem.taps + rows.k * K + cols.k;
      const Vec<A> initial = broadcast<A>(problem.bias ? to_acc(problem.bias[channel]) : A(0));
      for (int i = 0; i < count; ++i) {
        const Tile<K, G, R>& tile = tiles[i];
        Vec<A> acc[R];
        DWCONV_UNROLL
        for (int r = 0; r < R; ++r) acc[r] = initial;
        const T* source = problem.source + item * source_plane + (rows.source + tile.first) * pitch + cols.source;
        tile.add(acc, source, pitch, taps, cols.k_step, rows.k_step * K);
        source += kAhead;
        DWCONV_UNROLL
        for (int r = 0; r < R; ++r, source += G * pitch) __builtin_prefetch(source);
        activate<A>(acc, problem.activation);
        T* result = problem.result_plane(item) + tile.first * width;
        DWCONV_UNROLL
        for (int r = 0; r < R; ++r) {
          store(result, acc[r], G == 1 || r + 1 < R ? vector : last);
          if (large) __builtin_prefetch(result + kAhead, 1);
          advance(result, G * width);
        }
      }
      if (++channel == problem.channels) channel = 0;
    }
  }

  static bool half(const Problem& problem) { return 2 * problem.cols.results <= L; }

  // Whether rows can go by two, and those in the middle of the plane are inside for every tap.
  static bool by_two(const Problem& problem, int64_t kernel) {
    const int64_t first = residue(problem.rows, 0).source;
    return problem.cols.sources == problem.cols.results && problem.rows.results <= 8 && first <= 0 &&
           first >= 1 - kernel && first + 6 < problem.rows.sources;
  }

  template <int K>
  static void planes_of(const Problem& problem, int64_t begin, int64_t end) {
    if (half(problem)) return planes<K, 2, 4>(problem, begin, end);
    switch (problem.rows.results) {
      case 14: return planes<K, 1, 14>(problem, begin, end);
      case 10: return planes<K, 1, 10>(problem, begin, end);
      case 8:
      case 15:
      case 16: return planes<K, 1, 8>(problem, begin, end);
      default: return planes<K, 1, 7>(problem, begin, end);
    }
  }

  static void run(Operation operation, const Shape& shape, const Buffers& buffers, int64_t begin, int64_t end) {
    if (begin >= end) return;
    const Problem problem(operation, shape, buffers);
    switch (shape.KH) {
      case 3: return planes_of<3>(problem, begin, end);
      case 5: return planes_of<5>(problem, begin, end);
      default: return planes_of<7>(problem, begin, end);
    }
  }

  static const char* supports(Operation operation, const Shape& s) {
    const Problem problem(operation, s, {});
    if (s.KH != s.KW || (s.KH != 3 && s.KH != 5 && s.KH != 7)) return "it takes 3x3, 5x5 and 7x7";
    if (s.stride_h != 1 || s.stride_w != 1 || s.dilation_h != 1 || s.dilation_w != 1)
      return "stride or dilation is not 1";
    if (s.M != 1) return "there is a channel multiplier";
    if (problem.cols.results > L) return "rows of the result do not fit into one vector";
    if (problem.rows.results < 7 || problem.rows.results > 16)
      return "the result has fewer than 7 or more than 16 rows";
    if (half(problem) && !by_two(problem, s.KH)) return "two rows of the result cannot be read as one vector";
    // Measured: all but the float32 planes that no cache holds are faster transposed.
    if (half(problem) && problem.channels >= L && (!std::is_same_v<T, A> || !NchwPlan<T>(problem).large())) {
      return "two rows in a vector are slower than vectors of channels";
    }
    return nullptr;
  }
};

template <class T, Operation operation>
struct NchwSmallKernel {
  static int64_t items(const Shape& shape) {
    const Gather<T> problem(operation, shape, {});
    return problem.images * problem.channels;
  }
  static void run(const Shape& shape, const Buffers& buffers, int64_t begin, int64_t end) {
    NchwSmall<T>::run(operation, shape, buffers, begin, end);
  }
  static const char* supports(const Shape& shape) { return NchwSmall<T>::supports(operation, shape); }
  static int64_t workspace_bytes(const Shape&) { return 0; }
  static constexpr Stage stages[] = {{items, run}};
};
template <class T>
using NchwForwardSmall = NchwSmallKernel<T, Operation::forward>;
template <class T>
using NchwGradInputSmall = NchwSmallKernel<T, Operation::grad_input>;
