// forward and grad_input as the one computation that they are, a gather:
//
//   result[n, rc] = bias[rc] + sum over f < fan_in of correlate(source[n, source_channel(rc, f)], weight[filter(rc, f)])
//
// The activation follows. The geometry of each axis is in its lattice (lattice.h). forward reads one source channel for
// each result channel. grad_input reads the M output channels that an input channel fed:
//
//   M = 2, channel 3      forward: source channel 1, filter 3      grad_input: source channels 6 and 7, filters 6 and 7
#pragma once
#include "lattice.h"

namespace dwconv {

// What the shape says.
struct Gather {
  bool transposed;  // grad_input
  int64_t images, channels, source_channels, fan_in, M, taps;
  Axis rows, cols;

  Gather(Operation operation, const Shape& s)
      : transposed(operation == Operation::grad_input),
        images(s.N),
        channels(transposed ? s.C : s.out_channels()),
        source_channels(transposed ? s.out_channels() : s.C),
        fan_in(transposed ? s.M : 1),
        M(s.M),
        taps(s.taps()),
        rows(vertical_axis(operation, s)),
        cols(horizontal_axis(operation, s)) {}

  int64_t source_channel(int64_t channel, int64_t f) const { return transposed ? channel * M + f : channel / M; }
  int64_t filter(int64_t channel, int64_t f) const { return transposed ? channel * M + f : channel; }
  int64_t filters() const { return transposed ? channels * M : channels; }
  // Elements of a plane, and planes of all images.
  int64_t source_plane() const { return rows.sources * cols.sources; }
  int64_t result_plane() const { return rows.results * cols.results; }
  int64_t planes() const { return images * channels; }
  // Elements of source and result.
  int64_t elements() const { return images * (channels * result_plane() + source_channels * source_plane()); }
};

// The same with the operands of a call.
template <class T>
struct GatherCall : Gather {
  const T* source;
  const T* weight;
  const T* bias;  // or null
  T* result;
  Activation activation;

  GatherCall(const Gather& gather, const Buffers& b)
      : Gather(gather),
        source(static_cast<const T*>(transposed ? b.grad_output : b.input)),
        weight(static_cast<const T*>(b.weight)),
        bias(static_cast<const T*>(b.bias)),
        result(static_cast<T*>(b.result)),
        activation(b.activation) {}

  const T* source_image(int64_t n) const { return source + n * source_channels * source_plane(); }
};

}  // namespace dwconv
