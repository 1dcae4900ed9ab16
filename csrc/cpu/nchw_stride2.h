// forward and grad_input, contiguous layout (NCHW), 3x3 and 5x5 at a stride of 2, with AVX-512: forward of any type,
// grad_input of float32. Nothing is staged. The methods and their bounds stand in nchw_stride2_forward.h and
// nchw_stride2_grad_input.h; here is the choice between their tiles.

// The walk of grad_input over the planes. Items are bands of planes, or pairs of planes.
template <class Tile, bool pair>
struct Stride2Walk {
  using Problem = Gather<float>;
  static int64_t planes(const Problem& problem) { return problem.images * problem.channels; }
  static int64_t parts(const Problem& problem) {
    return pair ? 1 : bands(Tile::lattice_rows(problem), 2 * Tile::kTile, planes(problem));
  }
  static int64_t items(const Problem& problem) {
    return pair ? ceil_div(planes(problem), 2) : planes(problem) * parts(problem);
  }

  static __attribute__((noinline)) void run(const Problem& problem, int64_t begin, int64_t end) {
    constexpr int kTile = Tile::kTile, kBand = 2 * kTile;  // a band of sources stays in L1
    const int64_t all = Tile::lattice_rows(problem), strips = Tile::strips(problem), cut = parts(problem);
    const int64_t length = ceil_div(all, cut);
    const int64_t sources = problem.rows.sources * problem.cols.sources;
    Tile tile(problem);
    constexpr int64_t kKept = 16;
    typename Tile::Strip kept[kKept];
    for (int64_t strip = 0; strip < std::min(strips, kKept); ++strip) kept[strip] = tile.strip(strip);
    for (int64_t item = begin; item < end; ++item) {
      const int64_t plane = pair ? 2 * item : item / cut, part = pair ? 0 : item % cut;
      const int64_t other = pair ? std::min(plane + 1, planes(problem) - 1) : plane;
      const int64_t channel = plane % problem.channels, other_channel = other % problem.channels;
      const float *source = problem.source + plane * sources, *second = problem.source + other * sources;
      float *result = problem.result_plane(plane), *second_result = problem.result_plane(other);
      const int64_t from = part * length, to = std::min(all, from + length);
      Vec<float> bias = {};
      if (problem.bias) {
        bias = broadcast(problem.bias[channel]);
        if (pair) {
          bias = (Vec<float>)_mm512_mask_broadcastss_ps((__m512)bias, 0xff00, _mm_set_ss(problem.bias[other_channel]));
        }
      }
      for (int64_t band = from; band < to; band += kBand) {
        const int64_t stop = std::min(to, band + kBand);
        for (int64_t strip = 0; strip < strips; ++strip) {
          const typename Tile::Strip lanes = strip < kKept ? kept[strip] : tile.strip(strip);
          tile.template load_weights<pair>(lanes, problem.weight + channel * problem.taps,
                                           problem.weight + other_channel * problem.taps);
          int64_t j = band;
          // The last tile may start early, and compute rows a second time to the same bits.
          for (; j + kTile <= stop || (to - from >= kTile && j < stop); j += kTile) {
            tile.template tile<kTile>(lanes, source, second, result, second_result, bias, strip,
                                      std::min(j, to - kTile));
          }
          for (; j < stop; ++j) {
            tile.template tile<1>(lanes, source, second, result, second_result, bias, strip, j);
          }
        }
      }
    }
  }
};

// Which tile a shape is for.
template <class T, Map map>
struct NchwStride2Kernel {
  using Problem = Gather<T>;

  // What is done with the walk that fits the problem.
  template <class Use>
  static auto choose(const Problem& problem, const Use& use) {
    return problem.cols.kernel == 3 ? choose_width<3>(problem, use) : choose_width<5>(problem, use);
  }
  template <int K, class Use>
  static auto choose_width(const Problem& problem, const Use& use) {
    const bool narrow = map == Map::forward ? Stride2Forward<T, K, true>::fits(problem)
                                            : problem.cols.results <= kLanes<float>;  // two halves are interleaved
    return narrow ? choose_parity<K, true>(problem, use) : choose_parity<K, false>(problem, use);
  }
  template <int K, bool narrow, class Use>
  static auto choose_parity(const Problem& problem, const Use& use) {
    if constexpr (map == Map::forward) {
      return use(Stride2ForwardWalk<Stride2Forward<T, K, narrow>>{});
    } else if (problem.cols.pad % 2 == 0) {
      return use(Stride2Walk<Stride2GradInput<K, narrow, 0>, narrow>{});
    } else {
      return use(Stride2Walk<Stride2GradInput<K, narrow, 1>, narrow>{});
    }
  }

  static const char* supports(const Shape& s) {
    if (s.stride_h != 2 || s.stride_w != 2) return "it is made for a stride of 2";
    if (s.KH != s.KW || (s.KH != 3 && s.KH != 5)) return "it is made for 3x3 and 5x5";
    if (s.dilation_h != 1 || s.dilation_w != 1) return "it knows no dilation";
    if (s.M != 1) return "it knows no channel multiplier";
    if (map == Map::grad_input && (s.pad_top + s.pad_left) % 2 != 0) {
      return "it wants both paddings even or both odd";
    }
    return nullptr;
  }
  static int64_t items(const Shape& shape) {
    const Problem problem(map, shape, {});
    return choose(problem, [&](auto walk) { return walk.items(problem); });
  }
  static void run(const Shape& shape, const Buffers& buffers, int64_t begin, int64_t end) {
    const Problem problem(map, shape, buffers);
    choose(problem, [&](auto walk) { walk.run(problem, begin, end); });
  }
  static constexpr int64_t (*workspace_bytes)(const Shape&) = nullptr;
  static constexpr Stage stages[] = {{items, run}};
};
template <class T>
using NchwForwardStride2 = NchwStride2Kernel<T, Map::forward>;
template <class T>
using NchwGradInputStride2 = NchwStride2Kernel<T, Map::grad_input>;
