// forward and grad_input, channels last (NHWC), at least a vector of channels and no multiplier.
//
// Method: tiles of two rows by up to seven results (nhwc_tile.h), all channels of a block inside a tile. Weights are packed
// in the accumulator's type and in the order in which the tiles read them, so that a tap is one load at a fixed place: by
// the item that reads them, or for many images by a first stage. Where C is no multiple of the vector, the last vector
// starts early: no load or store is masked.
// Bound: FMA in the caches, bytes beyond them for 3x3.

template <class T>
struct NhwcTiled {
  using A = Acc<T>;
  using Problem = Gather<T>;
  static constexpr int L = kLanes<A>;

  // Vectors of channels in blocks. The taps of a block fill part of L1; so do its pixels of a few rows where an image comes
  // from L2, while pixels from beyond are better read whole. Where the channels do not fill the last vector, a block has
  // two at least, if there are as many: the last one starts inside the one before, and no two items may write the same
  // channels.
  struct Blocks {
    int64_t vectors, count;
    bool packs;   // whether an item packs the weights of its block into scratch
    bool copies;  // whether it copies the pixels of its image
    explicit Blocks(const Problem& problem) : vectors(ceil_div(problem.channels, L)) {
      constexpr int64_t kTapBytes = 16384, kSmallBytes = 2 << 20, kVectors = 6;
      const int64_t pixels = problem.rows.sources * problem.cols.sources + problem.rows.results * problem.cols.results;
      const int64_t vector_bytes = kVecBytes * std::max<int64_t>(1, problem.taps);
      const int64_t vectors_of_taps = kTapBytes / vector_bytes;
      const bool small = pixels * problem.channels * int64_t(sizeof(T)) <= kSmallBytes;
      const int64_t most = vectors_of_taps < 3 ? 1 : small ? std::min(kVectors, vectors_of_taps) : vectors_of_taps;
      const int64_t limit = problem.channels % L == 0 ? vectors : vectors / 2;
      count = std::clamp<int64_t>(ceil_div(vectors, most), 1, std::max<int64_t>(1, limit));
      packs = problem.images == 1 && ceil_div(vectors, count) * vector_bytes <= kScratchBytes;
      copies = packs && most == 1 && count == vectors &&
               problem.rows.sources * problem.cols.sources * kVecBytes <= kImageBytes;
    }
    int64_t begin(int64_t b) const { return vectors * b / count; }
  };
  static constexpr int64_t kScratchBytes = 65536, kImageBytes = 65536;

  // The pixels of a vector of channels, next to each other: where the taps are many each is read often, and the pitch of
  // a tensor may map all of them to a few sets of L1.
  static void copy(const Problem& problem, const T* source, T* image) {
    const int64_t pixels = problem.rows.sources * problem.cols.sources;
    for (int64_t i = 0; i < pixels; ++i) std::memcpy(image + i * L, source + i * problem.channels, L * sizeof(T));
  }

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

  static int64_t workspace_bytes(Operation operation, const Shape& shape) {
    const Problem problem(operation, shape, {});
    const Blocks blocks(problem);
    return blocks.packs ? 0 : blocks.vectors * problem.taps * kVecBytes;
  }

  // Stage 1, an item a vector of channels.
  static int64_t pack_items(Operation operation, const Shape& shape) {
    const Blocks blocks(Problem(operation, shape, {}));
    return blocks.packs ? 0 : blocks.vectors;
  }

  static void pack(Operation operation, const Shape& shape, const Buffers& buffers, int64_t begin, int64_t end) {
    const Problem problem(operation, shape, buffers);
    pack_taps(problem, TapPlaces(problem.rows, problem.cols),
              static_cast<A*>(buffers.workspace) + begin * problem.taps * L, begin, end);
  }

  // Stage 2, an item a band of pairs of rows of an image for a block of channels.
  static int64_t items(Operation operation, const Shape& shape) {
    const Problem problem(operation, shape, {});
    const Blocks blocks(problem);
    return problem.images * bands_of(problem, blocks, pairs_of(Lattices(problem.rows, true))) * blocks.count;
  }

  static void run(Operation operation, const Shape& shape, const Buffers& buffers, int64_t begin, int64_t end) {
    const Problem problem(operation, shape, buffers);
    const Blocks blocks(problem);
    const Lattices rows(problem.rows, true), cols(problem.cols, share_columns(problem.cols));
    const int64_t pairs = pairs_of(rows), parts = bands_of(problem, blocks, pairs);
    const NhwcRows<T> tiles(problem, rows, cols);
    const TapPlaces places(problem.rows, problem.cols);
    Tile<T> tile;
    tile.bias = problem.bias;
    tile.activation = problem.activation;
    tile.vector_taps = problem.taps * L;
    tile.most = problem.channels - L;
    tile.width = problem.cols.sources;
    // Measured with a reader right behind: from results of 7 MB on, which the caches do not hold anyhow.
    const int64_t results = problem.images * problem.rows.results * problem.cols.results * problem.channels;
    tile.far = results > 7'000'000 / int64_t(sizeof(T));
    tile.stream =
        tile.far && problem.channels * sizeof(T) % kVecBytes == 0 && uintptr_t(problem.result) % kVecBytes == 0;
    alignas(64) A scratch[kScratchBytes / sizeof(A)];
    alignas(64) T image[kImageBytes / sizeof(A)];
    int64_t packed_block = -1, copied = -1;
    for (int64_t item = begin; item < end; ++item) {
      // Where items pack, those of a block follow each other.
      const int64_t block = blocks.packs ? item / parts : item % blocks.count;
      const int64_t band = (blocks.packs ? item : item / blocks.count) % parts;
      const int64_t n = item / blocks.count / parts;
      const int64_t first = blocks.begin(block), last = blocks.begin(block + 1);
      tile.begin = first * L, tile.end = last * L;
      if (blocks.packs && block != packed_block) pack_taps(problem, places, scratch, first, last), packed_block = block;
      const A* packed = blocks.packs ? scratch : static_cast<const A*>(buffers.workspace) + tile.begin * problem.taps;
      const T* source = problem.source_image(n);
      int64_t pitch = problem.channels;
      if (blocks.copies) {
        if (copied != item / parts) copy(problem, source + tile.begin, image), copied = item / parts;
        source = image - tile.begin, pitch = L;
      }
      for (int64_t pair = pairs * band / parts; pair < pairs * (band + 1) / parts; ++pair) {
        tiles.compute(tile, source, pitch, packed, n, pair % rows.count(), pair / rows.count() * 2);
      }
    }
    if (tile.stream) end_of_streams();
  }

  static const char* supports(Operation, const Shape& shape) {
    if (shape.M != 1) return "there is a channel multiplier";
    if (shape.C < L) return "the channels do not fill a vector";
    return nullptr;
  }
};

template <class T, Operation operation>
struct NhwcTiledKernel {
  using Body = NhwcTiled<T>;
  static int64_t pack_items(const Shape& shape) { return Body::pack_items(operation, shape); }
  static void pack(const Shape& shape, const Buffers& buffers, int64_t begin, int64_t end) {
    Body::pack(operation, shape, buffers, begin, end);
  }
  static int64_t items(const Shape& shape) { return Body::items(operation, shape); }
  static void run(const Shape& shape, const Buffers& buffers, int64_t begin, int64_t end) {
    Body::run(operation, shape, buffers, begin, end);
  }
  static const char* supports(const Shape& shape) { return Body::supports(operation, shape); }
  static int64_t workspace_bytes(const Shape& shape) { return Body::workspace_bytes(operation, shape); }
  static constexpr Stage stages[] = {{pack_items, pack}, {items, run}};
};
template <class T>
using NhwcForwardTiled = NhwcTiledKernel<T, Operation::forward>;
template <class T>
using NhwcGradInputTiled = NhwcTiledKernel<T, Operation::grad_input>;
