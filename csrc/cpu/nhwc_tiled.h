// forward and grad_input, channels last (NHWC), at least a vector of channels and no multiplier.
//
// Method: tiles of two rows by up to seven results (nhwc_tile.h), all channels of a block inside a tile. A first stage packs
// the weights in the accumulator's type and in the order in which the tiles read them, so that a tap is one load at a fixed
// place. Where C is no multiple of the vector, the last vector starts early: no load or store is masked.
// Bound: FMA in the caches, bytes beyond them for 3x3.

template <class T>
struct NhwcTiled {
  using A = Acc<T>;
  using Problem = Gather<T>;
  static constexpr int L = kLanes<A>;

  // Vectors of channels in blocks. The taps of a block fill part of L1; so do its pixels of a few rows where an image comes
  // from L2, while pixels from beyond are better read whole. A block has two vectors at least, if there are as many: the
  // last one may start early, inside the one before, and no two items may write the same channels.
  struct Blocks {
    int64_t vectors, count;
    explicit Blocks(const Problem& problem) : vectors(ceil_div(problem.channels, L)) {
      constexpr int64_t kTapBytes = 16384, kImageBytes = 2 << 20, kVectors = 6;
      const int64_t pixels = problem.rows.sources * problem.cols.sources + problem.rows.results * problem.cols.results;
      const int64_t vectors_of_taps = kTapBytes / (kVecBytes * std::max<int64_t>(1, problem.taps));
      const bool small = pixels * problem.channels * int64_t(sizeof(T)) <= kImageBytes;
      const int64_t most = std::max<int64_t>(3, small ? std::min(kVectors, vectors_of_taps) : vectors_of_taps);
      count = std::clamp<int64_t>(ceil_div(vectors, most), 1, std::max<int64_t>(1, vectors / 2));
    }
    int64_t begin(int64_t b) const { return vectors * b / count; }
  };

  // Rows of results in pairs of neighbours in a refined lattice; the lattices take turns.
  static int64_t pairs_of(const Lattices& rows) {
    Lattice spare;
    int64_t most = 0;
    for (int64_t i = 0; i < rows.count(); ++i) most = std::max(most, rows.at(i, spare).count);
    return rows.count() * ceil_div(most, 2);
  }
  static int64_t bands_of(const Problem& problem, const Blocks& blocks, int64_t pairs) {
    return bands(pairs, 2, problem.images * blocks.count);
  }

  static int64_t workspace_bytes(Map map, const Shape& shape) {
    const Problem problem(map, shape, {});
    return Blocks(problem).vectors * problem.taps * kVecBytes;
  }

  // Stage 1, an item a vector of channels.
  static int64_t pack_items(Map map, const Shape& shape) { return Blocks(Problem(map, shape, {})).vectors; }

  static void pack(Map map, const Shape& shape, const Buffers& buffers, int64_t begin, int64_t end) {
    pack_taps(Problem(map, shape, buffers), static_cast<A*>(buffers.workspace), begin, end);
  }

  // Stage 2, an item a band of pairs of rows of an image for a block of channels.
  static int64_t items(Map map, const Shape& shape) {
    const Problem problem(map, shape, {});
    const Blocks blocks(problem);
    return problem.images * bands_of(problem, blocks, pairs_of(Lattices(problem.rows, true))) * blocks.count;
  }

  static void run(Map map, const Shape& shape, const Buffers& buffers, int64_t begin, int64_t end) {
    const Problem problem(map, shape, buffers);
    const Blocks blocks(problem);
    const Lattices rows(problem.rows, true), cols(problem.cols, share_columns(problem.cols));
    const int64_t pairs = pairs_of(rows), parts = bands_of(problem, blocks, pairs);
    Tile<T> tile;
    tile.bias = problem.bias;
    tile.activation = problem.activation;
    tile.vector_taps = problem.taps * L;
    tile.most = problem.channels - L;
    tile.width = problem.cols.sources;
    // Measured with a reader right behind: from results of 7 MB on, which the caches do not hold anyhow.
    tile.far =
        problem.images * problem.rows.results * problem.cols.results * problem.channels * double(sizeof(T)) > 7e6;
    tile.stream =
        tile.far && problem.channels * sizeof(T) % kVecBytes == 0 && uintptr_t(problem.result) % kVecBytes == 0;
    for (int64_t item = begin; item < end; ++item) {
      const int64_t block = item % blocks.count, band = item / blocks.count % parts, n = item / blocks.count / parts;
      tile.begin = blocks.begin(block) * L, tile.end = blocks.begin(block + 1) * L;
      const A* packed = static_cast<const A*>(buffers.workspace) + tile.begin * problem.taps;
      for (int64_t pair = pairs * band / parts; pair < pairs * (band + 1) / parts; ++pair) {
        Lattice spare;
        const Lattice& lattice = rows.at(pair % rows.count(), spare);
        const int64_t j = pair / rows.count() * 2;
        if (j < lattice.count) NhwcRows<T>{problem, lattice, cols, packed, n, j}.compute(tile);
      }
    }
    if (tile.stream) end_of_streams();
  }

  static const char* supports(Map, const Shape& shape) {
    if (shape.M != 1) return "there is a channel multiplier";
    if (shape.C < L) return "the channels do not fill a vector";
    return nullptr;
  }
};

template <class T, Map map>
struct NhwcTiledKernel {
  using Body = NhwcTiled<T>;
  static int64_t pack_items(const Shape& shape) { return Body::pack_items(map, shape); }
  static void pack(const Shape& shape, const Buffers& buffers, int64_t begin, int64_t end) {
    Body::pack(map, shape, buffers, begin, end);
  }
  static int64_t items(const Shape& shape) { return Body::items(map, shape); }
  static void run(const Shape& shape, const Buffers& buffers, int64_t begin, int64_t end) {
    Body::run(map, shape, buffers, begin, end);
  }
  static const char* supports(const Shape& shape) { return Body::supports(map, shape); }
  static int64_t workspace_bytes(const Shape& shape) { return Body::workspace_bytes(map, shape); }
  static constexpr Stage stages[] = {{pack_items, pack}, {items, run}};
};
template <class T>
using NhwcForwardTiled = NhwcTiledKernel<T, Map::forward>;
template <class T>
using NhwcGradInputTiled = NhwcTiledKernel<T, Map::grad_input>;
