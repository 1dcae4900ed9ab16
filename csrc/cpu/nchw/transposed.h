// forward and grad_input, contiguous layout (NCHW), small or narrow planes of many channels.
//
// Method: the planes of a few vectors of channels are transposed to pixels, the tiles of NHWC (nhwc/tile_rows.h) compute
// pixels of results, and those are transposed back. All of it stays in L1: planes that are too large for that go in bands
// of rows. No lane is left empty, and padding takes no time. grad_input with a channel multiplier adds up the results of
// each of the M output channels.
// Bound: FMA; the shuffles for 3x3.
#if defined(DWCONV_CPU_NCHW_TRANSPOSED_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_NCHW_TRANSPOSED_H
#undef DWCONV_CPU_NCHW_TRANSPOSED_H
#else
#define DWCONV_CPU_NCHW_TRANSPOSED_H
#endif

#include "../axis/bands.h"
#include "../axis/planes.h"
#include "../kernel_list.h"
#include "../nhwc/packed_taps.h"
#include "../nhwc/tile_rows.h"

DWCONV_BEGIN_TARGET

template <class T>
class NchwTransposed {
 public:
  using A = Acc<T>;
  static constexpr int L = kLanes<A>;

  NchwTransposed(Operation operation, const Shape& shape)
      : problem_(operation, shape),
        places_(problem_.rows, problem_.cols),
        tiles_(problem_.rows, problem_.cols),
        band_rows_(rows_of_band(problem_)),
        vectors_(ceil_div(problem_.channels, L)) {
    constexpr int64_t kVectors = 4;
    const int64_t band = std::max<int64_t>(1, pixels(problem_, band_rows_));
    const int64_t most = std::min({kVectors, kPixels / band, kTaps / std::max<int64_t>(1, problem_.taps)});
    blocks_ = ceil_div(vectors_, std::max<int64_t>(1, most));
    // Memory in its order, but so many images together that packing their taps takes little of the time.
    const int64_t plane = std::max<int64_t>(1, problem_.source_plane() + problem_.result_plane());
    const int64_t images = std::max<int64_t>(1, ceil_div(4 * problem_.taps, plane));
    chunks_ = std::max(bands(problem_.images, 1, blocks_), ceil_div(problem_.images, images));
    // Beyond L2 the next block's planes are fetched while these are transposed.
    ahead_ = problem_.elements() * int64_t(sizeof(T)) > caches::kPlanesInL2;
  }

  static const char* supports(Operation operation, const Shape& shape) {
    const Gather problem(operation, shape);
    if (problem.taps > kTaps) return "it has no room for so many taps";
    if (pixels(problem, 1) > kPixels) return "it has no room for a row of results and its sources";
    return nullptr;
  }

  int64_t workspace_bytes() const { return 0; }

  // An item a block of vectors of channels of some images.
  int64_t items() const { return blocks_ * chunks_; }

  void run(const Buffers& buffers, int64_t begin, int64_t end) const {
    const GatherCall<T> call(problem_, buffers);
    for (int64_t item = begin; item < end; ++item) {
      const int64_t block = item % blocks_, chunk = item / blocks_;
      run_block(call, vectors_ * block / blocks_, vectors_ * (block + 1) / blocks_, call.images * chunk / chunks_,
                call.images * (chunk + 1) / chunks_);
    }
  }

  static constexpr Stage<NchwTransposed> stages[] = {{&NchwTransposed::items, &NchwTransposed::run}};

 private:
  static constexpr int64_t kPixels = 400;  // vectors of sources and results together
  static constexpr int64_t kTaps = 1024;   // vectors of taps

  // Source rows that result rows [begin, end) read.
  static Range source_rows(const Axis& rows, int64_t begin, int64_t end) {
    const int64_t reach = (rows.kernel - 1) * rows.dilation;
    Range range = {begin * rows.stride - rows.pad, (end - 1) * rows.stride - rows.pad + reach + 1};
    if (rows.transposed) {
      range = {ceil_div(begin + rows.pad - reach, rows.stride), (end - 1 + rows.pad) / rows.stride + 1};
    }
    range.lo = std::clamp<int64_t>(range.lo, 0, rows.sources);
    return {range.lo, std::clamp(range.hi, range.lo, rows.sources)};
  }

  // Of `rows` rows of results, and the sources that they read. Sums of a channel multiplier have pixels of their own.
  static int64_t pixels(const Gather& problem, int64_t rows) {
    const Axis& axis = problem.rows;
    const int64_t reach = (rows - 1) * (axis.transposed ? 1 : axis.stride) + (axis.kernel - 1) * axis.dilation;
    const int64_t sources = std::min(axis.sources, (axis.transposed ? reach / axis.stride + 1 : reach) + 1);
    return sources * problem.cols.sources + rows * problem.cols.results * (problem.fan_in > 1 ? 2 : 1);
  }

  static int64_t rows_of_band(const Gather& problem) {
    int64_t rows = problem.rows.results;
    while (rows > 1 && pixels(problem, rows) > kPixels) --rows;
    return rows;
  }

  // Vectors [first, last) of channels of images [begin, end).
  void run_block(const GatherCall<T>& call, int64_t first, int64_t last, int64_t begin, int64_t end) const {
    const int64_t channels = (last - first) * L, source_width = call.cols.sources, result_width = call.cols.results;
    alignas(kVecBytes) A scratch[kPixels * L], packed[kTaps * L], bias[kPixels];
    Tile<A> tile;
    tile.bias = call.bias ? bias : nullptr;
    tile.activation = call.activation;
    tile.vector_taps = call.taps * L;
    tile.begin = 0, tile.end = channels, tile.most = channels - L;
    tile.far = tile.stream = false;
    for (int64_t v = first; call.bias && v < last; ++v) {
      store(bias + (v - first) * L, load(call.bias + v * L, lanes<A>(0, call.channels - v * L)));
    }
    if (call.fan_in == 1) pack(call, 0, first, last, packed);

    const int64_t ahead = ahead_ ? channels : 0, result_plane = call.result_plane();
    const Planes<T> results{call.result, call.channels,       call.channels * result_plane, result_plane,
                            1,           ahead * result_plane};
    for (int64_t n = begin; n < end; ++n) {
      for (int64_t row = 0; row < call.rows.results; row += band_rows_) {
        const int64_t stop = std::min(call.rows.results, row + band_rows_);
        const Range needed = source_rows(call.rows, row, stop);
        A* const sums = scratch + (needed.hi - needed.lo) * source_width * channels;
        A* const terms = sums + (stop - row) * result_width * channels;
        if (call.fan_in == 0) std::fill_n(sums, (stop - row) * result_width * channels, A(0));
        for (int64_t f = 0; f < call.fan_in; ++f) {
          if (call.fan_in > 1) pack(call, f, first, last, packed);
          const Planes<const T> sources = source_planes(call, f, ahead);
          for (int64_t v = first; v < last; ++v) {
            sources.to_places(n, v, needed.lo * source_width, (needed.hi - needed.lo) * source_width,
                              scratch + (v - first) * L, [&](int64_t i) { return i * channels; });
          }
          // The tiles count rows from the beginning of the image.
          A* const to = f == 0 ? sums : terms;
          const typename TileRows<A>::Image image{scratch - needed.lo * source_width * channels, channels,
                                                  to - row * result_width * channels, channels, packed};
          for (int64_t r = 0; r < tiles_.lattices(); ++r) {
            const Range rows = tiles_.rows_within(r, row, stop);
            for (int64_t j = rows.lo; j < rows.hi; j += 2) tiles_.compute(tile, image, r, j, rows.hi);
          }
          if (f > 0) add(sums, terms, (stop - row) * result_width * channels);
        }
        for (int64_t v = first; v < last; ++v) {
          results.from_pixels(n, v, row * result_width, (stop - row) * result_width, sums + (v - first) * L, channels);
        }
      }
    }
  }

  // The planes that result channels read, each its term f.
  static Planes<const T> source_planes(const GatherCall<T>& call, int64_t f, int64_t ahead) {
    const int64_t plane = call.source_plane(), image = call.source_channels * plane;
    if (call.fan_in > 1) return {call.source + f * plane, call.channels, image, call.M * plane, 1, 0};
    return {call.source, call.source_channels, image, plane, call.channels / call.source_channels, ahead * plane};
  }

  // The weights of term f for vectors [first, last).
  void pack(const GatherCall<T>& call, int64_t f, int64_t first, int64_t last, A* packed) const {
    const Planes<const T> filters{call.weight + f * call.taps, call.channels, 0, call.fan_in * call.taps};
    for (int64_t v = first; v < last; ++v, packed += call.taps * L) {
      filters.to_places(0, v, 0, call.taps, packed, [&](int64_t tap) { return places_(tap) * L; });
    }
  }

  static void add(A* sums, const A* terms, int64_t count) {
    for (int64_t i = 0; i < count; i += L) store(sums + i, load(sums + i) + load(terms + i));
  }

  Gather problem_;
  TapPlaces places_;
  TileRows<A> tiles_;
  int64_t band_rows_;
  int64_t vectors_, blocks_, chunks_;  // of channels, of vectors, of images
  bool ahead_;
};

DWCONV_END_TARGET

#endif  // DWCONV_CPU_NCHW_TRANSPOSED_H
