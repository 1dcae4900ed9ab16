// grad_weight and the bias gradient, channels last (NHWC), 3x3 at stride 1 or 2 without dilation or multiplier.
//
// Method: tiles of 2x7 results (pixel_taps.h) walk along pairs of rows, every vector of channels of a block at each
// tile, so that the tensors stream through once in the order of memory; the nine accumulators of a vector live in L1.
// Tensors are read where they lie; where they come from memory, the next rows are
// prefetched, since hardware gives up on so many short streams. Work is split by block of channels and chunk of rows.
// Bound: bytes; FMA where the tensors sit in L2.

template <class T>
struct NhwcGradWeightK3 {
  using A = Acc<T>;
  static constexpr int L = kLanes<A>;
  static constexpr int64_t kVectors = 24576 / (9 * kVecBytes);  // of channels in a block: their accumulators, in L1
  static constexpr int64_t kChunkPixels = 256;                  // worth the sums of another chunk

  struct Problem {
    Shape s;
    int64_t vectors, blocks, rows;
    ChunkSums<A> sums;

    Problem(const Shape& shape, const Buffers& b)
        : s(shape),
          vectors(ceil_div(s.C, L)),
          blocks(ceil_div(vectors, kVectors)),
          rows(s.N * s.OH),
          sums{static_cast<A*>(b.workspace), 1, vectors, 9} {
      const int64_t worthwhile = std::min(bands(rows, 1, blocks), rows * s.OW / kChunkPixels);
      sums.chunks = std::max<int64_t>({1, worthwhile, ceil_div(rows * ceil_div(s.OW, kChain), kChain)});
    }
  };

  static int64_t workspace_bytes(const Shape& shape) { return Problem(shape, {}).sums.bytes(); }

  // Stage 1, an item one chunk of rows for one block of channels.
  static int64_t items(const Shape& shape) {
    const Problem problem(shape, {});
    return problem.sums.chunks * problem.blocks;
  }

  static void run(const Shape& shape, const Buffers& buffers, int64_t begin, int64_t end) {
    const Problem problem(shape, buffers);
    for (int64_t item = begin; item < end; ++item) {
      const int64_t block = item % problem.blocks, chunk = item / problem.blocks;
      const Walk walk{problem,
                      static_cast<const T*>(buffers.input),
                      static_cast<const T*>(buffers.grad_output),
                      problem.vectors * block / problem.blocks,
                      problem.vectors * (block + 1) / problem.blocks,
                      buffers.grad_bias != nullptr,
                      from_memory<T>(shape, 16 << 20)};
      walk.add(chunk, problem.rows * chunk / problem.sums.chunks, problem.rows * (chunk + 1) / problem.sums.chunks);
      if (problem.sums.chunks > 1) continue;
      for (int64_t vector = walk.begin; vector < walk.end; ++vector) finish_vector(problem, buffers, vector);
    }
  }

  // The vectors [begin, end) of channels.
  struct Walk {
    const Problem& problem;
    const T* input;
    const T* grad_output;
    int64_t begin, end;
    bool with_bias, far;

    void add(int64_t chunk, int64_t row, int64_t last) const {
      Vec<A> acc[kVectors][9], bias[kVectors];
      std::fill_n(&acc[0][0], 9 * (end - begin), Vec<A>{});
      std::fill_n(bias, end - begin, Vec<A>{});
      A* sums = problem.sums.at(chunk, begin);
      std::fill_n(sums, (end - begin) * 10 * L, A(0));
      int64_t chain = 0;
      while (row < last) {
        const int64_t n = row / problem.s.OH, o = row % problem.s.OH;
        const int64_t count = row + 2 <= last && o + 2 <= problem.s.OH ? 2 : 1;
        if (problem.s.stride_h == 1) {
          count == 2 ? rows<1, 2>(n, o, acc) : rows<1, 1>(n, o, acc);
        } else {
          count == 2 ? rows<2, 2>(n, o, acc) : rows<2, 1>(n, o, acc);
        }
        if (with_bias) add_bias(row * problem.s.OW, (row + count) * problem.s.OW, bias);
        row += count;
        chain += count * problem.s.OW;
        if (chain < kChain && row < last) continue;
        chain = 0;
        for (int64_t v = begin; v < end; ++v) {
          A* to = sums + (v - begin) * 10 * L;
          for (int t = 0; t < 9; ++t)
            store(to + t * L, load(to + t * L) + acc[v - begin][t]), acc[v - begin][t] = Vec<A>{};
          store(to + 9 * L, load(to + 9 * L) + bias[v - begin]), bias[v - begin] = Vec<A>{};
        }
      }
    }

    void add_bias(int64_t pixel, int64_t last, Vec<A>* bias) const {
      const int64_t channels = problem.s.C;
      for (; pixel < last; ++pixel) {
        for (int64_t v = begin; v < end; ++v) {
          bias[v - begin] += load(grad_output + pixel * channels + v * L, lanes<A>(0, channels - v * L));
        }
      }
    }

    // The lines that the rows after these will be the first to read.
    template <int S, int TR, int TC>
    DWCONV_INLINE_MEMBER void prefetch(const T* input, const T* grad) const {
      const Shape& s = problem.s;
      grad += TR * s.OW * s.C;
      DWCONV_UNROLL
      for (int i = 0; i < TR; ++i, grad += s.OW * s.C) {
        const T* at = grad;
        DWCONV_UNROLL
        for (int j = 0; j < TC; ++j, advance(at, s.C)) __builtin_prefetch(at, 0, 2);
      }
      input += (S * (TR - 1) + 3) * s.W * s.C + s.C;
      DWCONV_UNROLL
      for (int i = 0; i < S * TR; ++i, input += s.W * s.C) {
        const T* at = input;
        DWCONV_UNROLL
        for (int j = 0; j < S * TC; ++j, advance(at, s.C)) __builtin_prefetch(at, 0, 2);
      }
    }

    template <int S, int TR>
    void rows(int64_t n, int64_t o, Vec<A> (*acc)[9]) const {
      const Shape& s = problem.s;
      const int64_t y = S * o - s.pad_top;
      const Span span{input + (n * s.H + y) * s.W * s.C - s.pad_left * s.C, grad_output + (n * s.OH + o) * s.OW * s.C,
                      bits_within<S*(TR - 1) + 3>(y, {0, s.H}), acc};
      int64_t j = 0;
      for (; j + kTile <= s.OW; j += kTile) tiles<S, TR, kTile>(span, j);
      for (; j + 3 <= s.OW; j += 3) tiles<S, TR, 3>(span, j);
      for (; j < s.OW; ++j) tiles<S, TR, 1>(span, j);
    }

    struct Span {
      const T* input;  // position 0 of the first row
      const T* grad_output;
      uint32_t rows;
      Vec<A> (*acc)[9];
    };

    template <int S, int TR, int TC>
    DWCONV_INLINE_MEMBER void tiles(const Span& span, int64_t j) const {
      const Shape& s = problem.s;
      const uint32_t cols = bits_within<S*(TC - 1) + 3>(S * j - s.pad_left, {0, s.W});
      for (int64_t v = begin; v < end; ++v) {
        const T* grad = span.grad_output + j * s.C + v * L;
        const T* at = span.input + S * j * s.C + v * L;
        if (far) prefetch<S, TR, TC>(at, grad);
        tile_3x3<S, TR, TC>(span.acc[v - begin], grad, s.OW * s.C, s.C, at, s.W * s.C, s.C, span.rows, cols,
                            lanes<A>(0, s.C - v * L));
      }
    }
  };

  static void finish_vector(const Problem& problem, const Buffers& buffers, int64_t vector) {
    problem.sums.finish(vector, problem.s.C, static_cast<T*>(buffers.result), static_cast<T*>(buffers.grad_bias));
  }

  // Stage 2, an item a vector of channels, where there are chunks to be added.
  static int64_t finish_items(const Shape& shape) {
    const Problem problem(shape, {});
    return problem.sums.chunks > 1 ? problem.vectors : 0;
  }

  static void finish(const Shape& shape, const Buffers& buffers, int64_t begin, int64_t end) {
    const Problem problem(shape, buffers);
    for (int64_t vector = begin; vector < end; ++vector) finish_vector(problem, buffers, vector);
  }

  static const char* supports(const Shape& s) {
    if (s.KH != 3 || s.KW != 3) return "the kernel is not 3x3";
    if (s.stride_h != s.stride_w || s.stride_h > 2) return "the stride is neither 1 nor 2";
    if (s.dilation_h != 1 || s.dilation_w != 1) return "the dilation is not 1";
    if (s.M != 1) return "there is a channel multiplier";
    // Measured: in caches, one vector of channels after the other is faster, where that can be had without copies.
    if (s.stride_h == 1 && s.C % L == 0 &&
        PixelReader<T>(nullptr, s.C, s.H, s.W, 1, from_memory<T>(s, kNear)).in_place()) {
      return "the tensors are small, and their pixels can be read in place";
    }
    return nullptr;
  }
  static constexpr Stage stages[] = {{items, run}, {finish_items, finish}};
};
