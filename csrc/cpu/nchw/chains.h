// forward and grad_input, contiguous layout (NCHW), 3x3 at stride 1 where rows of results are as long as those of sources.
// For AVX-512 only.
//
// Method: a plane is one long row, so no row ends in a vector that is mostly empty, and a tap is the same plane moved by a
// constant. The results of a chain lie one dilation of rows apart. Tap row t of one is tap row t - 1 of the next, so each
// source is loaded once for a column of taps, and the masks of the columns hold for the whole chain:
//
//   dilation 2, rows of results   0 . 2 . 4 .    a chain          its sources are rows -2 0 2 4 6
//                                 . 1 . 3 . 5    the next chain
//
// A chain is computed in segments. What a segment reads, and which lanes of it are inside, is made once for all planes.
// Bound: FMA, beside loads that straddle cache lines.
#if defined(DWCONV_CPU_NCHW_CHAINS_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_NCHW_CHAINS_H
#undef DWCONV_CPU_NCHW_CHAINS_H
#else
#define DWCONV_CPU_NCHW_CHAINS_H
#endif

#include "../axis/bands.h"
#include "../axis/gather.h"
#include "../kernel_list.h"
#include "../simd/activate.h"
#include "row_sums.h"

DWCONV_BEGIN_TARGET
#if DWCONV_VEC_BYTES == 64

template <class T>
class NchwChains {
 public:
  using A = Acc<T>;
  static constexpr int L = kLanes<A>, K = 3, kMost = 6;  // results in a segment
  static constexpr int64_t kSegments = 256;              // of a plane: they stay in L1

  NchwChains(Operation operation, const Shape& shape)
      : problem_(operation, shape),
        cut_(problem_),
        parts_(bands(cut_.segments, 4, problem_.planes())),
        large_(problem_.elements() * int64_t(sizeof(T)) > caches::kResultsInCache) {
    for (int64_t i = 0; i < cut_.segments; ++i) segments_[i] = cut_.segment(i);
  }

  static const char* supports(Operation operation, const Shape& s) {
    if (s.KH != K || s.KW != K) return "it takes 3x3";
    if (s.stride_h != 1 || s.stride_w != 1) return "the stride is not 1";
    if (s.M != 1) return "there is a channel multiplier";
    const Gather problem(operation, s);
    if (problem.cols.results != problem.cols.sources) return "rows of results and of sources differ in length";
    if (Cut(problem).segments > kSegments) return "planes are large";
    return nullptr;
  }

  int64_t workspace_bytes() const { return 0; }

  // An item some of the segments of a plane.
  int64_t items() const { return problem_.planes() * parts_; }

  void run(const Buffers& buffers, int64_t begin, int64_t end) const {
    const GatherCall<T> call(problem_, buffers);
    for (int64_t item = begin; item < end; ++item) {
      const int64_t index = item / parts_, part = item % parts_, channel = index % call.channels;
      const Segment* const from = segments_ + cut_.segments * part / parts_;
      const Segment* const to = segments_ + cut_.segments * (part + 1) / parts_;
      Weights weights;
      const T* filter = call.weight + channel * call.taps + cut_.rows.k * K + cut_.cols.k;
      for (int t = 0; t < K; ++t) {
        for (int u = 0; u < K; ++u) weights.tap[t][u] = to_acc(filter[t * cut_.rows.k_step * K + u * cut_.cols.k_step]);
      }
      weights.bias = call.bias ? to_acc(call.bias[channel]) : A(0);
      const Plane plane{call,    cut_,  call.source + index * cut_.sources, call.result + index * cut_.results,
                        weights, large_};
      switch (cut_.length) {
        case 1: plane.template compute<1>(from, to); break;
        case 2: plane.template compute<2>(from, to); break;
        case 3: plane.template compute<3>(from, to); break;
        case 4: plane.template compute<4>(from, to); break;
        default: plane.template compute<kMost>(from, to);
      }
    }
  }

  static constexpr Stage<NchwChains> stages[] = {{&NchwChains::items, &NchwChains::run}};

 private:
  // Neighbours in a chain, as every plane has them.
  struct Segment {
    int64_t source, result;  // of the first: element of the plane, the source's inside or not
    int results;
    uint16_t present, apart;              // positions that are inside in some lanes, and of those: not in all
    uint16_t col[K], row[kMost + K - 1];  // lanes inside, for columns of taps and for positions
    uint16_t stored[kMost];               // lanes of results
  };

  // A mask in its register, straight from memory.
  static DWCONV_INLINE_MEMBER Mask<A> held(const uint16_t& stored) {
    __mmask16 bits = stored;
    asm("kmovw %1, %0" : "=Yk"(bits) : "m"(stored));
    return Mask<A>::of(bits);
  }

  // How the planes are cut: chains of `steps` results, a vector of them next to each other.
  struct Cut {
    Lattice rows, cols;
    int64_t width, sources, results, step, vectors, steps, segments_of_chain = 0, segments;
    int length = 0;  // results of a segment

    explicit Cut(const Gather& problem) : rows(residue(problem.rows, 0)), cols(residue(problem.cols, 0)) {
      width = problem.cols.results;
      sources = problem.rows.sources * width, results = problem.rows.results * width;
      step = std::min(rows.tap_step * width, std::max<int64_t>(results, 1));
      vectors = ceil_div(step, L);
      steps = ceil_div(results, step);
      // The last segment of a chain may start early, and compute results a second time to the same bits: as few as can be, but
      // a segment has its price.
      for (const int most : {kMost, 4, 3, 2, 1}) {
        const int64_t count = ceil_div(steps, most);
        if (most <= steps && (length == 0 || count * (most + 1) < segments_of_chain * (length + 1))) {
          length = most, segments_of_chain = count;
        }
      }
      segments = steps == 0 ? 0 : vectors * segments_of_chain;
    }

    Segment segment(int64_t index) const {
      const int64_t first = index / segments_of_chain * L;
      Segment segment = {};
      segment.results = length;
      const int64_t j = std::min(index % segments_of_chain * segment.results, steps - segment.results);
      segment.result = first + step * j;
      segment.source = segment.result + rows.source * width + cols.source;
      const auto lanes_of = [&](int64_t lo, int64_t hi) {
        return uint16_t(lanes<A>(lo, std::min(hi, step - first)).bits);
      };
      for (int u = 0; u < K; ++u) {
        const Range across = inside(cols.source + cols.tap_step * u, 1, width);
        for (int64_t row = -(first % width); row < L; row += width) {
          segment.col[u] |= lanes_of(row + across.lo, row + std::min(across.hi, width));
        }
      }
      for (int r = 0; r < segment.results; ++r) segment.stored[r] = lanes_of(0, results - segment.result - step * r);
      for (int i = 0; i < segment.results + K - 1; ++i) {
        const int64_t at = segment.result + rows.source * width + rows.tap_step * width * i;
        segment.row[i] = lanes_of(-at, sources - at);
        segment.present |= uint16_t((segment.row[i] != 0) << i);
        segment.apart |= uint16_t((segment.row[i] != lanes_of(0, L)) << i);
      }
      return segment;
    }
  };

  struct Weights {
    A tap[K][K], bias;
  };

  struct Plane {
    const GatherCall<T>& call;
    const Cut& cut;
    const T* source;
    T* result;
    const Weights& weights;
    bool large;  // fetch the lines of the results, too

    template <int R>
    __attribute__((noinline)) void compute(const Segment* segment, const Segment* end) const {
      const int64_t down = cut.rows.tap_step * cut.width, across = cut.cols.tap_step, next_plane = cut.sources;
      Vec<A> weight[K][K];
      DWCONV_UNROLL
      for (int t = 0; t < K; ++t) {
        DWCONV_UNROLL
        for (int u = 0; u < K; ++u) weight[t][u] = broadcast<A>(weights.tap[t][u]), opaque(weight[t][u]);
      }
      const Vec<A> initial = broadcast<A>(weights.bias);
      for (; segment != end; ++segment) {
        Vec<A> acc[R];
        DWCONV_UNROLL
        for (int r = 0; r < R; ++r) acc[r] = initial;
        const T* at = source + segment->source;
        uint32_t present = segment->present;
        Mask<A> col[K];
        DWCONV_UNROLL
        for (int u = 0; u < K; ++u) col[u] = held(segment->col[u]);
        DWCONV_UNROLL
        for (int i = 0; i < R + K - 1; ++i) {
          opaque(at), opaque(present);
          if (present & (1u << i)) {
            if (__builtin_expect(segment->apart & (1u << i), 0)) {
              const Mask<A> both[K] = {Mask<A>::of(segment->col[0] & segment->row[i]),
                                       Mask<A>::of(segment->col[1] & segment->row[i]),
                                       Mask<A>::of(segment->col[2] & segment->row[i])};
              add(acc, weight, i, at, across, both);
            } else {
              add(acc, weight, i, at, across, col);
            }
            __builtin_prefetch(at + next_plane);
          }
          at += down;
        }
        activate<T>(acc, call.activation);
        T* to = result + segment->result;
        DWCONV_UNROLL
        for (int r = 0; r < R; ++r) {
          store(to, acc[r], Mask<A>::of(segment->stored[r]));
          if (large) __builtin_prefetch(to + cut.results, 1);
          advance(to, cut.step);
        }
      }
    }

    // Position i of a segment.
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

  Gather problem_;
  Cut cut_;
  int64_t parts_;  // of a plane
  bool large_;
  Segment segments_[kSegments];
};

#endif
DWCONV_END_TARGET

#endif  // DWCONV_CPU_NCHW_CHAINS_H
