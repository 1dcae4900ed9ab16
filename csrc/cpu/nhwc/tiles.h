// forward and grad_input, channels last (NHWC), at least a vector of channels and no multiplier.
//
// Method: tiles of two rows by up to seven results (tile.h), all channels of a block inside a tile. Weights are packed
// in the accumulator's type and in the order in which the tiles read them, so that a tap is one load at a fixed place: by
// the item that reads them, or for many images by a first stage. Where C is no multiple of the vector, the last vector
// starts early: no load or store is masked.
// Bound: FMA in the caches, bytes beyond them for 3x3.
#if defined(DWCONV_CPU_NHWC_TILES_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_NHWC_TILES_H
#undef DWCONV_CPU_NHWC_TILES_H
#else
#define DWCONV_CPU_NHWC_TILES_H
#endif

#include "../axis/bands.h"
#include "../kernel_list.h"
#include "packed_taps.h"
#include "tile_rows.h"

DWCONV_BEGIN_TARGET

template <class T>
class NhwcTiles {
 public:
  using A = Acc<T>;
  static constexpr int L = kLanes<A>;

  NhwcTiles(Operation operation, const Shape& shape)
      : problem_(operation, shape),
        blocks_(problem_),
        places_(problem_.rows, problem_.cols),
        tiles_(problem_.rows, problem_.cols),
        pairs_(tiles_.lattices() * ceil_div(tiles_.longest(), 2)),
        parts_(bands(pairs_, 2, problem_.images * blocks_.count)) {}

  static const char* supports(Operation, const Shape& shape) {
    if (shape.M != 1) return "there is a channel multiplier";
    if (shape.C < L) return "the channels do not fill a vector";
    return nullptr;
  }

  int64_t workspace_bytes() const { return blocks_.packs ? 0 : blocks_.vectors * problem_.taps * kVecBytes; }

  // Stage 1, an item a vector of channels.
  int64_t pack_items() const { return blocks_.packs ? 0 : blocks_.vectors; }
  void pack(const Buffers& buffers, int64_t begin, int64_t end) const {
    pack_taps(GatherCall<T>(problem_, buffers), places_, static_cast<A*>(buffers.workspace) + begin * problem_.taps * L,
              begin, end);
  }

  // Stage 2, an item a band of pairs of rows of an image for a block of channels.
  int64_t items() const { return problem_.images * parts_ * blocks_.count; }

  void run(const Buffers& buffers, int64_t begin, int64_t end) const {
    const GatherCall<T> call(problem_, buffers);
    Tile<T> tile;
    tile.bias = call.bias;
    tile.activation = call.activation;
    tile.vector_taps = call.taps * L;
    tile.most = call.channels - L;
    // Measured with a reader right behind.
    tile.far = call.planes() * call.result_plane() * int64_t(sizeof(T)) > caches::kStreamedResult;
    tile.stream = tile.far && call.channels * sizeof(T) % kVecBytes == 0 && uintptr_t(call.result) % kVecBytes == 0;
    tile.rounds = kRoundsAtOnce<T> && rounds_at_once();
    alignas(64) A scratch[kScratchBytes / sizeof(A)];
    alignas(64) T copied[kImageBytes / sizeof(A)];
    int64_t packed_block = -1, copied_image = -1;
    for (int64_t item = begin; item < end; ++item) {
      // Where items pack, those of a block follow each other.
      const int64_t block = blocks_.packs ? item / parts_ : item % blocks_.count;
      const int64_t band = (blocks_.packs ? item : item / blocks_.count) % parts_;
      const int64_t n = item / blocks_.count / parts_;
      const int64_t first = blocks_.begin(block), last = blocks_.begin(block + 1);
      tile.begin = first * L, tile.end = last * L;
      if (blocks_.packs && block != packed_block) pack_taps(call, places_, scratch, first, last), packed_block = block;
      typename TileRows<T>::Image image;
      image.packed = blocks_.packs ? scratch : static_cast<const A*>(buffers.workspace) + tile.begin * call.taps;
      image.source = call.source_image(n), image.source_pitch = call.channels;
      image.result = call.result + n * call.channels * call.result_plane(), image.result_pitch = call.channels;
      if (blocks_.copies) {
        if (copied_image != item / parts_) copy(call, image.source + tile.begin, copied), copied_image = item / parts_;
        image.source = copied - tile.begin, image.source_pitch = L;
      }
      for (int64_t pair = pairs_ * band / parts_; pair < pairs_ * (band + 1) / parts_; ++pair) {
        tiles_.compute(tile, image, pair % tiles_.lattices(), pair / tiles_.lattices() * 2, tiles_.longest());
      }
    }
    if (tile.stream) end_of_streams();
  }

  static constexpr Stage<NhwcTiles> stages[] = {{&NhwcTiles::pack_items, &NhwcTiles::pack},
                                                {&NhwcTiles::items, &NhwcTiles::run}};

 private:
  static constexpr int64_t kScratchBytes = 65536, kImageBytes = 65536;

  // Vectors of channels in blocks. The taps of a block fill part of L1; so do its pixels of a few rows where an image comes
  // from L2, while pixels from beyond are better read whole. Where the channels do not fill the last vector, a block has
  // two at least, if there are as many: the last one starts inside the one before, and no two items may write the same
  // channels.
  struct Blocks {
    int64_t vectors, count;
    bool packs;   // whether an item packs the weights of its block into scratch
    bool copies;  // whether it copies the pixels of its image
    explicit Blocks(const Gather& problem) : vectors(ceil_div(problem.channels, L)) {
      constexpr int64_t kTapBytes = 16384, kVectors = 6;
      const int64_t pixels = problem.source_plane() + problem.result_plane();
      const int64_t vector_bytes = kVecBytes * std::max<int64_t>(1, problem.taps);
      const int64_t vectors_of_taps = kTapBytes / vector_bytes;
      const bool small = pixels * problem.channels * int64_t(sizeof(T)) <= caches::kImageInL2;
      const int64_t most = vectors_of_taps < 3 ? 1 : small ? std::min(kVectors, vectors_of_taps) : vectors_of_taps;
      const int64_t limit = problem.channels % L == 0 ? vectors : vectors / 2;
      count = std::clamp<int64_t>(ceil_div(vectors, most), 1, std::max<int64_t>(1, limit));
      packs = problem.images == 1 && ceil_div(vectors, count) * vector_bytes <= kScratchBytes;
      copies = packs && most == 1 && count == vectors && problem.source_plane() * kVecBytes <= kImageBytes;
    }
    int64_t begin(int64_t b) const { return vectors * b / count; }
  };

  // The pixels of a vector of channels, next to each other: where the taps are many each is read often, and the pitch of
  // a tensor may map all of them to a few sets of L1.
  static void copy(const GatherCall<T>& call, const T* source, T* image) {
    for (int64_t i = 0; i < call.source_plane(); ++i) {
      std::memcpy(image + i * L, source + i * call.channels, L * sizeof(T));
    }
  }

  Gather problem_;
  Blocks blocks_;
  TapPlaces places_;
  TileRows<T> tiles_;
  // Rows of results in pairs of neighbours in a refined lattice; the lattices take turns. Bands of these pairs.
  int64_t pairs_, parts_;
};

DWCONV_END_TARGET

#endif  // DWCONV_CPU_NHWC_TILES_H
