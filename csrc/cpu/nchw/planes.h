// forward and grad_input, contiguous layout (NCHW), 3x3, 5x5 and 7x7 at stride 1 on planes of 7 to 16 rows that fit into
// a vector each: the 14x14, 10x10 and 7x7 planes at the end of a network. For AVX-512 only.
//
// Method: the inner loop of row_sums.h with whole planes in registers, and a walk that makes everything that does not
// depend on the plane before it begins. Rows of at most half a vector go by two: neighbouring rows are neighbours in
// memory, and where sources are as wide as results that is so for every tap. A vector loaded there is two rows, as if the
// plane had a stride of 2; masks keep taps out of the other row. 16-bit types are converted by each load.
// Bound: FMA; loads that straddle cache lines at 3x3.
#if defined(DWCONV_CPU_NCHW_PLANES_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_NCHW_PLANES_H
#undef DWCONV_CPU_NCHW_PLANES_H
#else
#define DWCONV_CPU_NCHW_PLANES_H
#endif

#include "../axis/bands.h"
#include "../axis/gather.h"
#include "../kernel_list.h"
#include "../one_of.h"
#include "../simd/activate.h"
#include "row_sums.h"

DWCONV_BEGIN_TARGET
#if DWCONV_VEC_BYTES == 64

// What R vectors of G rows of results, from row `first` on, read of any plane, for K columns of taps.
template <class T, int K, int G, int R>
struct PlaneTile {
  using A = Acc<T>;
  static constexpr int kRows = kPositions<R, K, G>;
  // The positions of which all rows are inside if the plane passes by_two().
  static constexpr bool middle(int i) { return G == 1 || (i >= K - 1 && i < kRows - K); }

  int64_t first;
  uint32_t present = 0;  // positions that have a row inside
  // Lanes inside where all rows of a position are, and for each position; as wide as a mask register is loaded.
  uint16_t whole[K] = {}, edge[K][kRows] = {};

  PlaneTile(const Lattice& rows, const Lattice& cols, const Gather& problem, int64_t first_) : first(first_) {
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
      Mask<A> all = Mask<A>::of(whole[u]);
      pin<A>(all);
      uint32_t bits = present;
      asm volatile("" : "+r"(bits));  // or they would be taken apart before the loop, and spilled
      const T* row = source;
      DWCONV_UNROLL
      for (int i = 0; i < kRows; ++i) {
        if (bits >> i & 1) {
          const Mask<A> mask = middle(i) ? all : Mask<A>::of(edge[u][i]);
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

// Planes whose results take one tile or two.
template <class T, int K, int G, int R>
class WholePlanes {
 public:
  using A = Acc<T>;

  explicit WholePlanes(const Gather& problem)
      : rows_(residue(problem.rows, 0)),
        cols_(residue(problem.cols, 0)),
        // The second one computes some rows again, to the same bits.
        tiles_{{rows_, cols_, problem, 0}, {rows_, cols_, problem, std::max<int64_t>(0, rows_.count - R)}},
        count_(rows_.count > R * G ? 2 : 1),
        vector_(lanes<A>(0, G * cols_.count)),
        last_(lanes<A>(0, std::min(G * cols_.count, (rows_.count - G * (R - 1)) * cols_.count))),
        large_(problem.elements() * int64_t(sizeof(T)) > caches::kResultsInCache) {}

  static __attribute__((noinline)) void run(const void* part, const GatherCall<T>& call, int64_t begin, int64_t end) {
    const WholePlanes& plan = *static_cast<const WholePlanes*>(part);
    const Lattice &rows = plan.rows_, &cols = plan.cols_;
    const int64_t width = cols.count, pitch = call.cols.sources, source_plane = call.source_plane();
    const int64_t result_plane = call.result_plane();
    const Mask<A> vector = plan.vector_, last = plan.last_;
    // A copy: a store of results cannot change it, so its masks are not loaded again after each.
    const PlaneTile<T, K, G, R> tiles[2] = {plan.tiles_[0], plan.tiles_[1]};
    const int count = plan.count_;
    const bool large = plan.large_;
    int64_t channel = begin % call.channels;
    for (int64_t item = begin; item < end; ++item) {
      const T* taps = call.weight + channel * call.taps + rows.k * K + cols.k;
      const Vec<A> initial = broadcast<A>(call.bias ? to_acc(call.bias[channel]) : A(0));
      for (int i = 0; i < count; ++i) {
        const PlaneTile<T, K, G, R>& tile = tiles[i];
        Vec<A> acc[R];
        DWCONV_UNROLL
        for (int r = 0; r < R; ++r) acc[r] = initial;
        const T* source = call.source + item * source_plane + (rows.source + tile.first) * pitch + cols.source;
        tile.add(acc, source, pitch, taps, cols.k_step, rows.k_step * K);
        source += kAhead;
        DWCONV_UNROLL
        for (int r = 0; r < R; ++r, source += G * pitch) __builtin_prefetch(source);
        activate<T>(acc, call.activation);
        T* result = call.result + item * result_plane + tile.first * width;
        DWCONV_UNROLL
        for (int r = 0; r < R; ++r) {
          store(result, acc[r], G == 1 || r + 1 < R ? vector : last);
          if (large) __builtin_prefetch(result + kAhead, 1);
          advance(result, G * width);
        }
      }
      if (++channel == call.channels) channel = 0;
    }
  }

 private:
  static constexpr int64_t kAhead = 8192 / sizeof(T);  // elements that are fetched ahead

  Lattice rows_, cols_;
  PlaneTile<T, K, G, R> tiles_[2];
  int count_;
  Mask<A> vector_, last_;  // lanes to store, and of the last vector
  bool large_;
};

template <class T>
class NchwPlanes {
 public:
  static constexpr int L = kLanes<Acc<T>>;

  NchwPlanes(Operation operation, const Shape& shape) : problem_(operation, shape) {
    switch (shape.KH) {
      case 3: choose<3>(); break;
      case 5: choose<5>(); break;
      default: choose<7>();
    }
  }

  static const char* supports(Operation operation, const Shape& s) {
    if (s.KH != s.KW || (s.KH != 3 && s.KH != 5 && s.KH != 7)) return "it takes 3x3, 5x5 and 7x7";
    if (s.stride_h != 1 || s.stride_w != 1 || s.dilation_h != 1 || s.dilation_w != 1)
      return "stride or dilation is not 1";
    if (s.M != 1) return "there is a channel multiplier";
    const Gather problem(operation, s);
    if (problem.cols.results > L) return "rows of the result do not fit into one vector";
    if (problem.rows.results < 7 || problem.rows.results > 16)
      return "the result has fewer than 7 or more than 16 rows";
    if (half(problem) && !by_two(problem)) return "two rows of the result cannot be read as one vector";
    return nullptr;
  }

  int64_t workspace_bytes() const { return 0; }

  // An item a plane.
  int64_t items() const { return problem_.planes(); }
  void run(const Buffers& buffers, int64_t begin, int64_t end) const {
    planes_.run(GatherCall<T>(problem_, buffers), begin, end);
  }
  static constexpr Stage<NchwPlanes> stages[] = {{&NchwPlanes::items, &NchwPlanes::run}};

 private:
  static bool half(const Gather& problem) { return 2 * problem.cols.results <= L; }

  // Whether rows can go by two, and those in the middle of the plane are inside for every tap.
  static bool by_two(const Gather& problem) {
    const int64_t first = residue(problem.rows, 0).source;
    return problem.cols.sources == problem.cols.results && problem.rows.results <= 8 && first <= 0 &&
           first >= 1 - problem.rows.kernel && first + 6 < problem.rows.sources;
  }

  template <int K>
  void choose() {
    if (half(problem_)) return planes_.template make<WholePlanes<T, K, 2, 4>>(problem_);
    switch (problem_.rows.results) {
      case 14: return planes_.template make<WholePlanes<T, K, 1, 14>>(problem_);
      case 10: return planes_.template make<WholePlanes<T, K, 1, 10>>(problem_);
      case 8:
      case 15:
      case 16: return planes_.template make<WholePlanes<T, K, 1, 8>>(problem_);
      default: return planes_.template make<WholePlanes<T, K, 1, 7>>(problem_);
    }
  }

  Gather problem_;
  OneOf<GatherCall<T>, 2048> planes_;
};

#endif
DWCONV_END_TARGET

#endif  // DWCONV_CPU_NCHW_PLANES_H
