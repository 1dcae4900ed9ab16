// grad_weight in chunks, whose sums are kept apart: each writes sums of its own to the workspace, and a second launch adds
// them in order. How many chunks there are depends on the shape alone. One chunk writes its results directly.
//
// The workspace holds (chunks, output channels * taps) sums for the weights, then (chunks, output channels) for the bias.
#pragma once
#include <algorithm>

#include "device/device.cuh"

namespace dwconv::cuda {

// Adds the chunks in order: a thread for each weight and each bias.
template <class T>
__global__ void __launch_bounds__(128) add_chunks(const Accumulator<T>* partials, T* grad_weight, T* grad_bias,
                                                  int64_t weights, int64_t channels, int64_t chunks) {
  const int64_t step = int64_t(gridDim.x) * blockDim.x;
  const int64_t elements = weights + (grad_bias ? channels : 0);
  for (int64_t at = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; at < elements; at += step) {
    const bool is_weight = at < weights;
    const Accumulator<T>* from = is_weight ? partials + at : partials + chunks * weights + (at - weights);
    const int64_t pitch = is_weight ? weights : channels;
    Accumulator<T> sum = from[0];
    for (int64_t chunk = 1; chunk < chunks; ++chunk) sum += from[chunk * pitch];
    (is_weight ? grad_weight[at] : grad_bias[at - weights]) = narrow<T>(sum);
  }
}

template <class T>
int64_t chunks_bytes(const Shape& s, int64_t chunks) {
  return chunks == 1 ? 0 : chunks * s.out_channels() * (s.taps() + 1) * int64_t(sizeof(Accumulator<T>));
}

// Where the sums go, in whatever struct holds it: `partials` is the workspace, or null for one chunk.
template <class T, class Sums>
void set_sums(Sums& to, void* grad_weight, const Buffers& b, int64_t chunks) {
  to.grad_weight = static_cast<T*>(grad_weight);
  to.grad_bias = static_cast<T*>(b.grad_bias);  // null: not wanted
  to.partials = chunks == 1 ? nullptr : static_cast<Accumulator<T>*>(b.workspace);
}

// After the launch of the chunks: nullptr, or the error of either.
template <class T, class Sums>
const char* add_up_chunks(const char* error, const Sums& from, const Shape& s, int64_t chunks, Stream stream) {
  if (error || !from.partials) return error;
  const int64_t channels = s.out_channels(), weights = channels * s.taps();
  const int64_t blocks = std::min(ceil_div(weights + (from.grad_bias ? channels : 0), 128), kMaxGridX);
  return cuda::launch(add_chunks<T>, dim3(unsigned(blocks)), dim3(128), 0, stream, from.partials, from.grad_weight,
                      from.grad_bias, weights, channels, chunks);
}

}  // namespace dwconv::cuda
