// forward and grad_input as the one computation they are, a gather:
//
//   result[n, rc] = bias[rc] + sum over f < fan_in of correlate(source[n, source_channel(rc, f)], weight[filter(rc, f)])
//
// followed by the activation, with the geometry of each axis in its lattice. forward reads one source channel for each result, grad_input the M
// output channels that an input channel fed.

template <class T>
struct Gather {
  bool transposed;  // grad_input
  const T* source;
  const T* weight;
  const T* bias;
  T* result;
  int64_t images, channels, source_channels, fan_in, M, taps;
  Axis rows, cols;
  Activation activation;

  Gather(Operation operation, const Shape& s, const Buffers& b)
      : transposed(operation == Operation::grad_input),
        source(static_cast<const T*>(transposed ? b.grad_output : b.input)),
        weight(static_cast<const T*>(b.weight)),
        bias(static_cast<const T*>(b.bias)),
        result(static_cast<T*>(b.result)),
        images(s.N),
        channels(transposed ? s.C : s.out_channels()),
        source_channels(transposed ? s.out_channels() : s.C),
        fan_in(transposed ? s.M : 1),
        M(s.M),
        taps(s.taps()),
        rows(vertical_axis(operation, s)),
        cols(horizontal_axis(operation, s)),
        activation(b.activation) {}

  int64_t source_channel(int64_t channel, int64_t f) const { return transposed ? channel * M + f : channel / M; }
  const T* source_image(int64_t n) const { return source + n * source_channels * rows.sources * cols.sources; }
  T* result_plane(int64_t plane) const { return result + plane * rows.results * cols.results; }  // NCHW
  int64_t filter(int64_t channel, int64_t f) const { return transposed ? channel * M + f : channel; }
  int64_t filters() const { return transposed ? channels * M : channels; }
};

// How many parts to cut `length` rows into, when there are `others` independent pieces of work already: enough for many
// threads, no smaller than `least` rows. A function of sizes alone, never of the number of threads.
DWCONV_INLINE int64_t bands(int64_t length, int64_t least, int64_t others) {
  constexpr int64_t kEnough = 64;
  const int64_t wanted = ceil_div(kEnough, std::max<int64_t>(others, 1));
  return std::max<int64_t>(1, std::min(wanted, length / least));
}
