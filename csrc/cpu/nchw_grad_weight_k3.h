// grad_weight and the bias gradient, contiguous layout (NCHW), 3x3 at stride 1 or 2 without dilation.
//
// Method: a vector runs along a row of grad_output; a strip one vector wide goes down the plane in tiles of R rows, each
// input row loaded once for each kernel column and used for every row of the tile that it meets. All nine accumulators
// stay in registers. Sums over lanes are made for all taps together, by shuffles that halve the vectors with each step.
// Work is split by filter and, when there are few, by groups of images.
// Bound: bytes; loads that straddle cache lines where the tensors sit in L2.

template <class T>
struct NchwGradWeightK3 {
  using A = Acc<T>;
  static constexpr int L = kLanes<A>;
  static constexpr int kSums = 10;  // of a filter, the bias last

  static int64_t chunks(const Shape& s) { return bands(s.N, 1, s.out_channels()); }
  static int64_t workspace_bytes(const Shape& s) {
    return chunks(s) > 1 ? items(s) * kSums * int64_t(sizeof(double)) : 0;
  }

  // Stage 1, an item the images of one chunk for one filter.
  static int64_t items(const Shape& s) { return s.out_channels() * chunks(s); }

  // What kernel column t means for a strip: where its loads begin, which lanes are inside.
  struct Strip {
    int64_t col;
    Mask<A> grad, taps[3];
    bool whole;

    Strip(const Shape& s, int64_t first)
        : col(first), grad(lanes<A>(0, s.OW - first)), taps{tap(s, first, 0), tap(s, first, 1), tap(s, first, 2)} {
      whole = taps[0].full() && taps[1].full() && taps[2].full();
    }
    static Mask<A> tap(const Shape& s, int64_t first, int64_t t) {
      const Range range = inside(first * s.stride_w + t - s.pad_left, s.stride_w, s.W);
      return lanes<A>(range.lo, std::min(range.hi, s.OW - first));
    }
  };

  static void run(const Shape& s, const Buffers& buffers, int64_t begin, int64_t end) {
    const int64_t parts = chunks(s);
    const bool far = from_memory<T>(s, 16 << 20);
    for (int64_t item = begin; item < end; ++item) {
      const int64_t channel = item / parts, chunk = item % parts;
      double sums[9] = {}, bias = 0;
      for (int64_t n = s.N * chunk / parts; n < s.N * (chunk + 1) / parts; ++n) {
        const T* input = static_cast<const T*>(buffers.input) + (n * s.C + channel / s.M) * s.H * s.W;
        const T* grad = static_cast<const T*>(buffers.grad_output) + (n * s.out_channels() + channel) * s.OH * s.OW;
        s.stride_w == 1 ? plane<1>(s, input, grad, far, sums) : plane<2>(s, input, grad, far, sums);
        if (buffers.grad_bias) bias += NchwGradWeight<T>::plane_sum(grad, s.OH * s.OW);
      }
      if (parts == 1) {
        store_filter(buffers, channel, sums, bias);
      } else {
        double* to = static_cast<double*>(buffers.workspace) + item * kSums;
        std::copy_n(sums, 9, to);
        to[9] = bias;
      }
    }
  }

  static void store_filter(const Buffers& buffers, int64_t channel, const double* sums, double bias) {
    for (int t = 0; t < 9; ++t) from_acc(A(sums[t]), static_cast<T*>(buffers.result) + channel * 9 + t);
    if (buffers.grad_bias) from_acc(A(bias), static_cast<T*>(buffers.grad_bias) + channel);
  }

  template <int S>
  static void plane(const Shape& s, const T* input, const T* grad, bool far, double (&sums)[9]) {
    Vec<A> acc[9];
    clear(acc);
    int64_t chain = 0;
    for (int64_t col = 0; col < s.OW; col += L) {
      const Strip strip(s, col);
      for (int64_t row = 0; row < s.OH; row += kChain) {
        const Rows<S> rows{s, strip, input, grad, far, acc};
        const int64_t last = std::min(s.OH, row + kChain);
        chain += last - row;
        strip.whole ? rows.template all<false>(row, last) : rows.template all<true>(row, last);
        if (chain >= kChain) flush(acc, sums), chain = 0;
      }
    }
    flush(acc, sums);
  }

  static DWCONV_INLINE_MEMBER void clear(Vec<A> (&acc)[9]) {
    DWCONV_UNROLL
    for (int t = 0; t < 9; ++t) acc[t] = Vec<A>{};
  }

  static void flush(Vec<A> (&acc)[9], double (&sums)[9]) {
    add_sums<A>(sums, acc);
    clear(acc);
  }

  template <int S>
  struct Rows {
    const Shape& s;
    const Strip& strip;
    const T* input;
    const T* grad;
    bool far;
    Vec<A> (&acc)[9];

    template <bool masked>
    void all(int64_t first, int64_t last) const {
      Vec<A> sums[9];
      DWCONV_UNROLL
      for (int t = 0; t < 9; ++t) sums[t] = acc[t];
      int64_t o = first;
      for (; o + kTile <= last; o += kTile) tile<kTile, masked>(o, sums);
      for (; o + 3 <= last; o += 3) tile<3, masked>(o, sums);
      for (; o < last; ++o) tile<1, masked>(o, sums);
      DWCONV_UNROLL
      for (int t = 0; t < 9; ++t) acc[t] = sums[t];
    }

    template <int R, bool masked>
    DWCONV_INLINE_MEMBER void tile(int64_t o, Vec<A> (&sums)[9]) const {
      const int64_t y = S * o - s.pad_top;
      const uint32_t rows = bits_within<S*(R - 1) + 3>(y, {0, s.H});
      const T* at = grad + o * s.OW + strip.col;
      if (far) prefetch<R>(at, input + y * s.W + S * strip.col);
      Vec<A> grads[R];
      DWCONV_UNROLL
      for (int r = 0; r < R; ++r, advance(at, s.OW)) grads[r] = masked ? load(at, strip.grad) : load(at);
      at = input + y * s.W + S * strip.col - s.pad_left;
      DWCONV_UNROLL
      for (int i = 0; i < S * (R - 1) + 3; ++i, advance(at, s.W)) {
        if (!(rows >> i & 1)) continue;
        DWCONV_UNROLL
        for (int t = 0; t < 3; ++t) {
          const Vec<A> value = position<masked>(at + t, t);
          DWCONV_UNROLL
          for (int k = 0; k < 3; ++k) {
            const int r = reached<R, S>(i, k);
            if (r < 0) continue;
            // Padding must not turn an infinite gradient into NaN.
            add_product<masked, A>(sums[3 * k + t], grads[r], value, strip.taps[t]);
          }
        }
      }
    }

    // The same rows of the planes for the next image, or else the next filter.
    template <int R>
    DWCONV_INLINE_MEMBER void prefetch(const T* grad_row, const T* input_row) const {
      grad_row += (s.N > 1 ? s.out_channels() : 1) * s.OH * s.OW;
      input_row += (s.N > 1 ? s.C : 1) * s.H * s.W;
      for (int r = 0; r < R; ++r, grad_row += s.OW) __builtin_prefetch(grad_row, 0, 2);
      for (int r = 0; r < S * R; ++r, input_row += s.W) {
        for (int line = 0; line < S; ++line) __builtin_prefetch(input_row + line * L, 0, 2);
      }
    }

    template <bool masked>
    DWCONV_INLINE_MEMBER Vec<A> position(const T* at, int t) const {
      if constexpr (S == 1) return masked ? load(at, strip.taps[t]) : load(at);
      return masked ? load_even(at, strip.taps[t]) : load_even(at, LaneIndices<A>{});
    }
  };

  // Stage 2, an item a filter, where there are chunks to be added, in order.
  static int64_t filters(const Shape& s) { return chunks(s) > 1 ? s.out_channels() : 0; }

  static void finish(const Shape& s, const Buffers& buffers, int64_t begin, int64_t end) {
    const double* workspace = static_cast<const double*>(buffers.workspace);
    const int64_t parts = chunks(s);
    for (int64_t channel = begin; channel < end; ++channel) {
      double totals[kSums] = {};
      for (int64_t chunk = 0; chunk < parts; ++chunk) {
        for (int i = 0; i < kSums; ++i) totals[i] += workspace[(channel * parts + chunk) * kSums + i];
      }
      store_filter(buffers, channel, totals, totals[9]);
    }
  }

  static const char* supports(const Shape& s) {
    if (s.KH != 3 || s.KW != 3) return "the kernel is not 3x3";
    if (s.stride_h != s.stride_w || s.stride_h > 2) return "the stride is neither 1 nor 2";
    if (s.dilation_h != 1 || s.dilation_w != 1) return "the dilation is not 1";
    // Measured: below, transposed planes are faster.
    const bool narrow = s.OW <= (L < 16 ? 28 : L) || 4 * s.OW < 3 * L * ceil_div(s.OW, L);
    if (narrow && !PixelsOfPlanes<T>::supports(s)) return "rows are short, or fill less than 3/4 of their vectors";
    if (s.stride_w == 2 && kVecBytes < 64 && !PixelsOfPlanes<T>::supports(s)) {
      return "taking every second element is slow without AVX-512";
    }
    return nullptr;
  }
  static constexpr Stage stages[] = {{items, run}, {filters, finish}};
};
