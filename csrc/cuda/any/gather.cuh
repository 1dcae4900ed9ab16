// forward and grad_input for every shape, in either layout: a gather over taps (and, in grad_input, over the output
// channels that an input channel fed).
//
// Method: neighbouring lanes compute neighbours in memory (columns in NCHW, channels in NHWC), so that reads and writes
// coalesce. Each thread computes kResults results along the other image axis, the walk, and slides a window of as many
// sources over them: each source is read once for all taps and results of the thread that it serves, for any stride and
// dilation (axis.cuh). Padding is skipped, not multiplied. Offsets are 64-bit.
// Bound: L1 reads, (kResults + k - 1) / kResults for each cross tap and result.
#pragma once
#include <algorithm>

#include "../device/activate.cuh"
#include "../device/axis.cuh"
#include "../parameters.h"

namespace dwconv::cuda {

constexpr int kResults = 4;

template <class T>
struct GatherWindowParameters : Operands<T> {
  int64_t planes;  // NCHW: images * channels; NHWC: images * results of the cross axis
  int64_t channels, source_channels, fan_in, multiplier;
  Axis walk, cross;
  int64_t walk_items;  // groups of kResults on the walk axis
  int64_t walk_taps_pitch, cross_taps_pitch, taps;
  Divisor by_planes_of_image, by_multiplier;
  Activation activation;
};

template <class T>
__device__ __forceinline__ void gather_line(const GatherWindowParameters<T>& p, const T* source, const T* weight,
                                            int64_t pitch, const Taps& taps, Accumulator<T> (&acc)[kResults]) {
  Accumulator<T> window[kResults];
  bool inside[kResults];
  int64_t at = taps.first_source;
#pragma unroll
  for (int j = 0; j < kResults - 1; ++j, at += p.walk.source_step) {
    inside[j] = uint64_t(at) < uint64_t(p.walk.sources);
    window[j] = inside[j] ? widen(source[at * pitch]) : Accumulator<T>(0);
  }
  weight += taps.first_tap * p.walk_taps_pitch;
  for (int64_t i = 0; i < taps.count; i += kResults) {
#pragma unroll
    for (int s = 0; s < kResults; ++s) {
      if (i + s < taps.count) {
        constexpr int kLast = kResults - 1;
        inside[(s + kLast) % kResults] = uint64_t(at) < uint64_t(p.walk.sources);
        window[(s + kLast) % kResults] = inside[(s + kLast) % kResults] ? widen(source[at * pitch]) : Accumulator<T>(0);
        at += p.walk.source_step;
        const Accumulator<T> w = widen(__ldg(weight));
        weight += taps.tap_step * p.walk_taps_pitch;
#pragma unroll
        for (int j = 0; j < kResults; ++j) {
          if (inside[(s + j) % kResults]) acc[j] = multiply_add(window[(s + j) % kResults], w, acc[j]);
        }
      }
    }
  }
}

template <class T, Layout layout>
__global__ void __launch_bounds__(128, sizeof(T) == 8 ? 5 : 6) gather_window(GatherWindowParameters<T> p) {
  constexpr bool nchw = layout == Layout::nchw;
  const int64_t source_pixels = p.walk.sources * p.cross.sources;
  const int64_t lanes = nchw ? p.cross.results : p.channels;
  // Of a step along each axis in the source and in the result.
  const int64_t walk_pitch = nchw ? p.cross.sources : p.source_channels,
                cross_pitch = nchw ? 1 : p.walk.sources * walk_pitch;
  const int64_t result_pitch = nchw ? p.cross.results : p.channels;
  const int64_t per_image = nchw ? p.channels : p.cross.results;

  for (int64_t plane = blockIdx.x; plane < p.planes; plane += gridDim.x) {
    const int64_t image = p.by_planes_of_image.divide(plane), in_image = plane - image * per_image;
    for (int64_t item = int64_t(blockIdx.y) * blockDim.y + threadIdx.y; item < p.walk_items;
         item += int64_t(gridDim.y) * blockDim.y) {
      const int64_t line = p.walk.by_result_step.divide(item), residue = item - line * p.walk.result_step;
      const int64_t first = residue + line * kResults * p.walk.result_step;
      for (int64_t lane = int64_t(blockIdx.z) * blockDim.x + threadIdx.x; lane < lanes;
           lane += int64_t(gridDim.z) * blockDim.x) {
        const int64_t channel = nchw ? in_image : lane, cross_result = nchw ? lane : in_image;
        Accumulator<T> acc[kResults];
        const Accumulator<T> start = p.bias ? widen(p.bias[channel]) : Accumulator<T>(0);
#pragma unroll
        for (int j = 0; j < kResults; ++j) acc[j] = start;

        for (int64_t f = 0; f < p.fan_in; ++f) {
          const bool transposed = p.walk.direction < 0;
          const int64_t source_channel = transposed ? channel * p.multiplier + f : p.by_multiplier.divide(channel);
          const T* source = p.source + image * p.source_channels * source_pixels +
                            (nchw ? source_channel * source_pixels : source_channel);
          const T* weight = p.weight + (transposed ? source_channel : channel) * p.taps;
          for (int64_t ct = 0; ct < p.cross.tap_step && ct < p.cross.taps; ++ct) {
            const Taps cross = taps_from(p.cross, cross_result, ct);
            for (int64_t i = 0; i < cross.count; ++i) {
              const int64_t at = cross.first_source + i * p.cross.source_step;
              if (uint64_t(at) >= uint64_t(p.cross.sources)) continue;
              const T* cross_weight = weight + (cross.first_tap + i * cross.tap_step) * p.cross_taps_pitch;
              for (int64_t wt = 0; wt < p.walk.tap_step && wt < p.walk.taps; ++wt) {
                const Taps walk = taps_from(p.walk, first, wt);
                if (walk.count) gather_line(p, source + at * cross_pitch, cross_weight, walk_pitch, walk, acc);
              }
            }
          }
        }

        activate(acc, p.activation);
        T* result = p.result + (nchw ? plane * p.walk.results * result_pitch + lane
                                     : plane * p.walk.results * result_pitch + channel);
#pragma unroll
        for (int j = 0; j < kResults; ++j) {
          const int64_t r = first + j * p.walk.result_step;
          if (r < p.walk.results) result[r * result_pitch] = narrow<T>(acc[j]);
        }
      }
    }
  }
}

template <class T, Operation operation, Layout layout>
struct GatherWindow {
  static const char* supports(const Shape&) { return nullptr; }

  static const char* launch(const Shape& s, const Buffers& b, Stream stream) {
    constexpr bool transposed = operation == Operation::grad_input, nchw = layout == Layout::nchw;
    const Axis rows = vertical_axis(transposed, s), columns = horizontal_axis(transposed, s);
    GatherWindowParameters<T> p;
    set_operands<T>(p, transposed, b);
    p.channels = transposed ? s.C : s.out_channels();
    p.source_channels = transposed ? s.out_channels() : s.C;
    p.fan_in = transposed ? s.M : 1;
    p.multiplier = s.M;
    p.walk = nchw ? rows : columns;
    p.cross = nchw ? columns : rows;
    p.walk_taps_pitch = nchw ? s.KW : 1;
    p.cross_taps_pitch = nchw ? 1 : s.KW;
    p.taps = s.taps();
    p.by_planes_of_image = Divisor(nchw ? p.channels : p.cross.results);
    p.by_multiplier = Divisor(s.M);
    p.planes = s.N * (nchw ? p.channels : p.cross.results);
    const int64_t lanes = nchw ? p.cross.results : p.channels;
    if (p.planes == 0 || lanes == 0 || p.walk.results == 0) return nullptr;
    p.walk_items = ceil_div(p.walk.results, p.walk.result_step * kResults) * p.walk.result_step;
    // 128 threads: as many lanes as there are, rounded up to a power of two, the rest on the walk.
    int64_t across = 8;
    while (across < lanes && across < 128) across *= 2;
    const dim3 block(unsigned(across), unsigned(128 / across));
    const dim3 grid(unsigned(std::min(p.planes, kMaxGridX)),
                    unsigned(std::min(ceil_div(p.walk_items, block.y), kMaxGridYZ)),
                    unsigned(std::min(ceil_div(lanes, across), kMaxGridYZ)));
    return cuda::launch(gather_window<T, layout>, grid, block, 0, stream, p);
  }
};

}  // namespace dwconv::cuda
