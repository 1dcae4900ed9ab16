// grad_weight and the bias gradient, contiguous layout (NCHW), rows of at most half a vector.
//
// Method: a block is as many filters as a vector has lanes. Bands of rows of their planes are transposed, [channel]
// [pixel] to [pixel][channel], into scratch space that stays in cache, and the NHWC kernel runs on that. No lane is lost
// to short rows or padding, and taps need no sum over lanes, which on small maps costs nchw_grad_weight.h more than the
// products. The transposition is log2(L) shuffles for L values. Work is split by block and, when there are few, by
// groups of images.
// Bound: the shuffles at 3x3, FMA from 5x5 on.

template <class T>
struct NchwGradWeightBlocked {
  using A = Acc<T>;
  using Nhwc = NhwcGradWeight<A>;
  using Problem = typename Nhwc::Problem;
  static constexpr int L = kLanes<A>;
  static constexpr int64_t kScratch = 65536 / (L * sizeof(A));  // pixels, of input and grad_output together

  // Rows of grad_output in a band; 0 if not even one fits.
  static int64_t rows_of_band(const Shape& s) {
    const int64_t reach = (s.KH - 1) * s.dilation_h + 1;
    int64_t rows = 0;
    while (rows < s.OH && std::min(s.H, rows * s.stride_h + reach) * s.W + (rows + 1) * s.OW <= kScratch) ++rows;
    return rows;
  }

  static int64_t chunks(const Problem& problem) { return bands(problem.images, 1, problem.channels.vectors); }

  static int64_t workspace_bytes(const Shape& shape) {
    const Problem problem(shape, {});
    return chunks(problem) * problem.channels.vectors * (problem.taps + 1) * L * int64_t(sizeof(A));
  }

  // Stage 1, an item the images of one chunk for one block of filters.
  static int64_t items(const Shape& shape) {
    const Problem problem(shape, {});
    return chunks(problem) * problem.channels.vectors;
  }

  static void run(const Shape& shape, const Buffers& buffers, int64_t begin, int64_t end) {
    const Problem problem(shape, buffers);
    const int64_t images = ceil_div(problem.images, chunks(problem)), band = rows_of_band(shape);
    // Whole planes, of as many images as fit; or bands of one.
    const int64_t pixels = std::max<int64_t>(1, shape.H * shape.W + shape.OH * shape.OW);
    const int64_t together = band == shape.OH ? std::max<int64_t>(1, kScratch / pixels) : 1;
    for (int64_t item = begin; item < end; ++item) {
      const int64_t vector = item % problem.channels.vectors, chunk = item / problem.channels.vectors;
      const int64_t first = chunk * images, last = std::min(problem.images, first + images);
      A* sums = problem.sums(chunk, 0, vector);
      std::fill_n(sums, (problem.taps + 1) * L, A(0));
      for (int64_t n = first; n < last; n += together) {
        for (int64_t o = 0; o < shape.OH; o += band) {
          add_bands(shape, buffers, n, std::min(together, last - n), vector, o, std::min(shape.OH, o + band), sums);
        }
      }
    }
  }

  // Adds the rows [first, last) of grad_output of some images, counted from n, to the sums of one block.
  static void add_bands(const Shape& s, const Buffers& buffers, int64_t n, int64_t images, int64_t vector,
                        int64_t first, int64_t last, A* sums) {
    const int64_t top = first * s.stride_h - s.pad_top;
    const int64_t bottom = (last - 1) * s.stride_h + (s.KH - 1) * s.dilation_h - s.pad_top + 1;
    const int64_t begin = std::clamp<int64_t>(top, 0, s.H), end = std::clamp<int64_t>(bottom, begin, s.H);
    const int64_t input_pixels = (end - begin) * s.W, grad_pixels = (last - first) * s.OW;
    alignas(kVecBytes) A scratch[kScratch * L];
    A* grads = scratch + images * input_pixels * L;
    const Planes<const T> input{static_cast<const T*>(buffers.input), s.C, s.H * s.W, s.M};
    const Planes<const T> grad_output{static_cast<const T*>(buffers.grad_output), s.out_channels(), s.OH * s.OW, 1};
    for (int64_t i = 0; i < images; ++i) {
      input.to_pixels(n + i, vector, begin * s.W, input_pixels, scratch + i * input_pixels * L);
      grad_output.to_pixels(n + i, vector, first * s.OW, grad_pixels, grads + i * grad_pixels * L);
    }
    const Shape block = {images,       L,    1,          end - begin, s.W,          s.KH,         s.KW,
                         last - first, s.OW, s.stride_h, s.stride_w,  s.dilation_h, s.dilation_w, begin - top,
                         s.pad_left};
    Buffers operands;
    operands.input = scratch;
    operands.grad_output = grads;
    operands.workspace = sums;
    operands.grad_bias = buffers.grad_bias;
    Nhwc::add(Problem(block, operands), 0, 0, images * (last - first), 0);
  }

  // Stage 2, an item a block of filters.
  static int64_t finish_items(const Shape& shape) { return Problem(shape, {}).channels.vectors; }

  static void finish(const Shape& shape, const Buffers& buffers, int64_t begin, int64_t end) {
    const Problem problem(shape, buffers);
    Nhwc::template add_chunks_up<T>(problem, chunks(problem), buffers, begin, end);
  }

  static const char* supports(const Shape& shape) {
    // Measured: with longer rows the transposition costs more than the lanes that it saves.
    if (2 * shape.OW > L) return "a row of the map fills more than half a vector";
    return rows_of_band(shape) > 0 ? nullptr : "the rows that one row of grad_output reaches exceed its scratch space";
  }
  static constexpr Stage stages[] = {{items, run}, {finish_items, finish}};
};
