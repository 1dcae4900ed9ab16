// grad_weight and the bias gradient for every shape, in either layout.
//
// Method: a block owns a channel (NCHW; lanes are columns) or 32 of them (NHWC; lanes are channels), a tile of kTile by
// kTile taps and a chunk of the items. An item is a segment of the walk axis (rows in NCHW, columns in NHWC) at one place of
// the cross axis. Its thread streams along: for each gradient it reads one new source for each cross tap, slides the
// windows, and adds kTile * kTile products to as many registers, for any stride and dilation (axis.cuh). A warp adds its
// lanes by shuffles in a fixed tree (NCHW), a block its warps in order, and a second launch the chunks in order. How many
// chunks there are depends on the shape alone: enough blocks to fill a device, short enough chains of additions for
// float32. Padding is skipped, not multiplied. Offsets are 64-bit.
// Bound: L1 reads, (1 + kTile) / kTile^2 for each multiply-add.
#pragma once
#include <algorithm>

#include "../chunks.cuh"
#include "../device/axis.cuh"

namespace dwconv::cuda {

constexpr int kTile = 4;
constexpr int kSums = kTile * kTile + 1;  // of a thread: the taps, and the bias
constexpr int kItemThreads = 4;           // of a block of 32 lanes
constexpr int64_t kSegment = 64;          // results of the walk in an item

template <class T>
struct GradWeightWindowParameters {
  const T* input;
  const T* grad_output;
  T* grad_weight;
  T* grad_bias;              // null: not wanted
  Accumulator<T>* partials;  // null: one chunk, written directly; laid out as in chunks.cuh
  int64_t channels, input_channels, multiplier;
  Axis walk, cross;
  int64_t walk_taps_pitch, cross_taps_pitch;
  int64_t segments, places, items;  // of the walk; of the cross axis (tiles of 32 in NCHW); of all images
  int64_t walk_tiles, phase_tiles, cross_tiles, channel_tiles;
  Divisor by_multiplier, by_walk_tiles, by_phase_tiles, by_lines, by_places;
};

// What one thread adds up for the taps (phase + (first + i)*tap_step) x (cross_first + a).
template <class T, Layout layout>
__device__ __forceinline__ void grad_weight_item(const GradWeightWindowParameters<T>& p, int64_t channel, int64_t image,
                                                 int64_t place, int64_t line, int64_t phase, int64_t first,
                                                 int64_t cross_first, Accumulator<T> (&sums)[kSums]) {
  using A = Accumulator<T>;
  constexpr bool nchw = layout == Layout::nchw;
  const int64_t input_channel = p.by_multiplier.divide(channel);
  const int64_t input_pitch = nchw ? p.cross.sources : p.input_channels;
  const int64_t input_cross_pitch = nchw ? 1 : p.walk.sources * input_pitch;
  const int64_t grad_pitch = nchw ? p.cross.results : p.channels;
  const int64_t grad_cross_pitch = nchw ? 1 : p.walk.results * grad_pitch;
  const int64_t input_pixels = p.walk.sources * p.cross.sources, grad_pixels = p.walk.results * p.cross.results;
  const T* input = p.input + (nchw ? (image * p.input_channels + input_channel) * input_pixels
                                   : image * input_pixels * p.input_channels + input_channel);
  const T* grad = p.grad_output + place * grad_cross_pitch +
                  (nchw ? (image * p.channels + channel) * grad_pixels : image * grad_pixels * p.channels + channel);

  const int64_t segment = p.walk.by_result_step.divide(line), residue = line - segment * p.walk.result_step;
  int64_t result = residue + segment * kSegment * p.walk.result_step;
  int64_t at = result * p.walk.result_scale + p.walk.offset + phase * p.walk.tap_scale + first * p.walk.source_step;

  int64_t cross_at[kTile];
  bool cross_inside[kTile];
#pragma unroll
  for (int a = 0; a < kTile; ++a) {
    const int64_t source = place * p.cross.result_scale + p.cross.offset + (cross_first + a) * p.cross.tap_scale;
    cross_inside[a] = uint64_t(source) < uint64_t(p.cross.sources) && cross_first + a < p.cross.taps;
    cross_at[a] = source * input_cross_pitch;
  }
  A window[kTile][kTile];
  bool inside[kTile];
  const auto read = [&](int slot) {
    inside[slot] = uint64_t(at) < uint64_t(p.walk.sources);
#pragma unroll
    for (int a = 0; a < kTile; ++a) {
      window[a][slot] = inside[slot] && cross_inside[a] ? widen(input[at * input_pitch + cross_at[a]]) : A(0);
    }
    at += p.walk.source_step;
  };
#pragma unroll
  for (int i = 0; i < kTile - 1; ++i) read(i);
  for (int64_t j = 0; j < kSegment; j += kTile) {
#pragma unroll
    for (int s = 0; s < kTile; ++s) {
      if (j + s < kSegment && result < p.walk.results) {
        read((s + kTile - 1) % kTile);
        const A g = widen(grad[result * grad_pitch]);
        result += p.walk.result_step;
        sums[kSums - 1] += g;
#pragma unroll
        for (int a = 0; a < kTile; ++a) {
#pragma unroll
          for (int i = 0; i < kTile; ++i) {
            const int slot = (s + i) % kTile;
            if (inside[slot] && cross_inside[a]) {
              sums[a * kTile + i] = multiply_add(window[a][slot], g, sums[a * kTile + i]);
            }
          }
        }
      }
    }
  }
}

template <class T, Layout layout>
__global__ void __launch_bounds__(32 * kItemThreads, 4) grad_weight_window(GradWeightWindowParameters<T> p) {
  using A = Accumulator<T>;
  constexpr bool nchw = layout == Layout::nchw;
  DWCONV_SHARED_MEMORY(A, shared);  // NCHW: (warps, sums); NHWC: (item threads, sums, lanes)
  const int lane = threadIdx.x, item_thread = threadIdx.y;
  const int64_t chunks = gridDim.z, chunk = blockIdx.z;

  for (int64_t channel_tile = blockIdx.x; channel_tile < p.channel_tiles; channel_tile += gridDim.x) {
    const int64_t channel = nchw ? channel_tile : channel_tile * 32 + lane;
    for (int64_t tile = blockIdx.y; tile < p.walk_tiles * p.cross_tiles; tile += gridDim.y) {
      const int64_t cross_tile = p.by_walk_tiles.divide(tile), walk_tile = tile - cross_tile * p.walk_tiles;
      const int64_t cross_first = cross_tile * kTile;
      // Tiles of the walk's taps: of phase 0 first, and each phase has as many as phase 0, the last perhaps empty.
      const int64_t phase = p.by_phase_tiles.divide(walk_tile), first = (walk_tile - phase * p.phase_tiles) * kTile;

      A sums[kSums];
#pragma unroll
      for (int i = 0; i < kSums; ++i) sums[i] = A(0);
      for (int64_t item = chunk * kItemThreads + item_thread; item < p.items; item += chunks * kItemThreads) {
        const int64_t lines = p.segments * p.walk.result_step;
        const int64_t at_line = p.by_lines.divide(item), line = item - at_line * lines;
        const int64_t image = p.by_places.divide(at_line), place_tile = at_line - image * p.places;
        const int64_t place = nchw ? place_tile * 32 + lane : place_tile;
        if (place < p.cross.results && channel < p.channels) {
          grad_weight_item<T, layout>(p, channel, image, place, line, phase, first, cross_first, sums);
        }
      }

      // The sums of the block: over lanes by a tree (NCHW), then over item threads in order.
      const int pitch = nchw ? 1 : 32;
      if constexpr (nchw) {
#pragma unroll
        for (int i = 0; i < kSums; ++i) {
#pragma unroll
          for (int step = 16; step > 0; step /= 2) sums[i] += __shfl_xor_sync(0xffffffffu, sums[i], step);
        }
      }
      if (!nchw || lane == 0) {
#pragma unroll
        for (int i = 0; i < kSums; ++i) shared[(item_thread * kSums + i) * pitch + (nchw ? 0 : lane)] = sums[i];
      }
      __syncthreads();
      // One thread for each sum (NCHW: the lanes of all warps; NHWC: each lane's channel, sums over item threads).
      for (int i = nchw ? item_thread * 32 + lane : item_thread; i < kSums;
           i += nchw ? 32 * kItemThreads : kItemThreads) {
        A sum = A(0);
        for (int t = 0; t < kItemThreads; ++t) sum += shared[(t * kSums + i) * pitch + (nchw ? 0 : lane)];
        if (channel >= p.channels) continue;
        if (i == kSums - 1) {
          if (tile != 0 || !p.grad_bias) continue;
          const int64_t all = chunks * p.channels * p.walk.taps * p.cross.taps;
          if (p.partials)
            p.partials[all + chunk * p.channels + channel] = sum;
          else
            p.grad_bias[channel] = narrow<T>(sum);
          continue;
        }
        const int64_t cross_tap = cross_first + i / kTile, walk_tap = phase + (first + i % kTile) * p.walk.tap_step;
        if (cross_tap >= p.cross.taps || walk_tap >= p.walk.taps) continue;
        const int64_t taps = p.walk.taps * p.cross.taps;
        const int64_t at = channel * taps + walk_tap * p.walk_taps_pitch + cross_tap * p.cross_taps_pitch;
        if (p.partials)
          p.partials[chunk * p.channels * taps + at] = sum;
        else
          p.grad_weight[at] = narrow<T>(sum);
      }
      __syncthreads();
    }
  }
}

template <class T, Layout layout>
struct GradWeightWindow {
  static constexpr bool nchw = layout == Layout::nchw;

  struct Plan {
    Axis walk, cross;
    int64_t segments, places, items, walk_tiles, cross_tiles, channel_tiles, chunks;
  };

  static Plan plan(const Shape& s) {
    Plan p;
    const Axis rows = vertical_axis(false, s), columns = horizontal_axis(false, s);
    p.walk = nchw ? rows : columns;
    p.cross = nchw ? columns : rows;
    p.segments = ceil_div(p.walk.results, kSegment * p.walk.result_step);
    p.places = nchw ? ceil_div(p.cross.results, 32) : p.cross.results;
    p.items = s.N * p.places * p.segments * p.walk.result_step;
    p.walk_tiles = p.walk.tap_step * ceil_div(ceil_div(p.walk.taps, p.walk.tap_step), kTile);
    p.cross_tiles = ceil_div(p.cross.taps, kTile);
    p.channel_tiles = nchw ? s.out_channels() : ceil_div(s.out_channels(), 32);
    // Blocks that fill any device a few times over; items of one thread that float32 can add up.
    constexpr int64_t kBlocks = 1024, kItemsOfAThread = 32;
    const int64_t blocks = p.channel_tiles * p.walk_tiles * p.cross_tiles;
    const int64_t wanted =
        std::max(ceil_div(kBlocks, std::max<int64_t>(blocks, 1)), ceil_div(p.items, kItemThreads * kItemsOfAThread));
    p.chunks = std::max<int64_t>(1, std::min({wanted, ceil_div(p.items, kItemThreads), kMaxGridYZ}));
    return p;
  }

  static const char* supports(const Shape&) { return nullptr; }

  static int64_t workspace_bytes(const Shape& s) { return chunks_bytes<T>(s, plan(s).chunks); }

  static const char* launch(const Shape& s, const Buffers& b, Stream stream) {
    const Plan plan = GradWeightWindow::plan(s);
    GradWeightWindowParameters<T> p;
    p.input = static_cast<const T*>(b.input);
    p.grad_output = static_cast<const T*>(b.grad_output);
    set_sums<T>(p, b.result, b, plan.chunks);
    p.channels = s.out_channels();
    p.input_channels = s.C;
    p.multiplier = s.M;
    p.walk = plan.walk, p.cross = plan.cross;
    p.walk_taps_pitch = nchw ? s.KW : 1;
    p.cross_taps_pitch = nchw ? 1 : s.KW;
    p.segments = plan.segments, p.places = plan.places, p.items = plan.items;
    p.walk_tiles = plan.walk_tiles, p.cross_tiles = plan.cross_tiles, p.channel_tiles = plan.channel_tiles;
    p.phase_tiles = plan.walk_tiles / plan.walk.tap_step;
    p.by_multiplier = Divisor(s.M);
    p.by_walk_tiles = Divisor(p.walk_tiles);
    p.by_phase_tiles = Divisor(p.phase_tiles);
    p.by_lines = Divisor(p.segments * p.walk.result_step);
    p.by_places = Divisor(p.places);
    if (s.out_channels() == 0 || s.taps() == 0) return nullptr;
    const dim3 grid(unsigned(std::min(p.channel_tiles, kMaxGridX)),
                    unsigned(std::min(p.walk_tiles * p.cross_tiles, kMaxGridYZ)), unsigned(plan.chunks));
    const size_t shared_bytes = size_t(kItemThreads) * kSums * (nchw ? 1 : 32) * sizeof(Accumulator<T>);
    const char* error =
        cuda::launch(grad_weight_window<T, layout>, grid, dim3(32, kItemThreads), shared_bytes, stream, p);
    return add_up_chunks<T>(error, p, s, plan.chunks, stream);
  }
};

}  // namespace dwconv::cuda
