#include "planted.h"

#include <map>
#include <memory>

#include "../../../csrc/cuda/device/device.cuh"

namespace dwconv::test {
namespace {

using cuda::launch;
constexpr int kThreads = 64, kBlocks = 4;

template <bool sound>
__global__ void global_bounds(float* out, int n) {
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (sound ? i < n : i <= n) out[i] = float(i);
}

template <bool sound>
__global__ void shared_bounds(float* out) {
  DWCONV_SHARED_MEMORY(float, shared);
  shared[threadIdx.x + (sound ? 0 : 1)] = 1.0f;
  __syncthreads();
  out[blockIdx.x * blockDim.x + threadIdx.x] = sound ? shared[threadIdx.x] : 1.0f;
}

template <bool sound>
__global__ void missing_syncthreads(float* out) {
  DWCONV_SHARED_MEMORY(float, shared);
  shared[threadIdx.x] = 1.0f;
  if (sound) __syncthreads();
  out[blockIdx.x * blockDim.x + threadIdx.x] = shared[blockDim.x - 1 - threadIdx.x];
}

template <bool sound>
__global__ void divergent_barrier(float* out) {
  if (sound || threadIdx.x < 32) __syncthreads();
  out[blockIdx.x * blockDim.x + threadIdx.x] = 1.0f;
}

// Lanes by shuffles, warps through shared memory; the first warp adds those up.
template <bool sound>
__global__ void missing_sync_before_warp_sums(float* out) {
  DWCONV_SHARED_MEMORY(float, shared);
  float sum = 1.0f;
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = sum;
  if (sound) __syncthreads();
  if (threadIdx.x == 0) {
    float total = 0.0f;
    for (unsigned warp = 0; warp < blockDim.x / 32; ++warp) total += shared[warp];
    out[blockIdx.x] = total / float(blockDim.x);
  }
}

template <bool sound>
__global__ void add_between_blocks(float* out) {
  if (threadIdx.x != 0) return;
  if (sound) {
    atomicAdd(out, 1.0f / float(gridDim.x));
  } else {
    *out += 1.0f / float(gridDim.x);
  }
}

template <bool sound>
__global__ void missing_async_wait(float* out, const float* in) {
  DWCONV_SHARED_MEMORY(float, shared);
  cuda::async_copy16(shared + 4 * threadIdx.x, in + 4 * threadIdx.x);
  cuda::async_commit();
  if (sound) cuda::async_wait<0>();
  __syncthreads();
  out[blockIdx.x * blockDim.x + threadIdx.x] = shared[4 * (blockDim.x - 1 - threadIdx.x)];
}

// Pairs, from an odd element on.
template <bool sound>
__global__ void misaligned_vector(float* out, const float* in) {
  const uint2 pair = __ldg(reinterpret_cast<const uint2*>(in + (sound ? 0 : 1)) + threadIdx.x);
  out[blockIdx.x * blockDim.x + threadIdx.x] = pair.x == pair.y ? 1.0f : 0.0f;
}

// The same of shared memory.
template <bool sound>
__global__ void misaligned_shared_vector(float* out) {
  DWCONV_SHARED_MEMORY(float, shared);
  shared[threadIdx.x] = 1.0f;
  if (threadIdx.x == 0) shared[blockDim.x] = 1.0f;
  __syncthreads();
  const uint2 pair = *cuda::aligned<const uint2>(shared + threadIdx.x / 2 * 2 + (sound ? 0 : 1));
  out[blockIdx.x * blockDim.x + threadIdx.x] = pair.x == pair.y ? 1.0f : 0.0f;
}

// A tile that is filled again while slower threads still read it.
template <bool sound>
__global__ void write_after_read(float* out) {
  DWCONV_SHARED_MEMORY(float, shared);
  float sum = 0.0f;
  for (int round = 0; round < 4; ++round) {
    shared[threadIdx.x] = float(round);
    __syncthreads();
    sum += shared[(threadIdx.x + 1) % blockDim.x];
    if (sound) __syncthreads();
  }
  out[blockIdx.x * blockDim.x + threadIdx.x] = sum / 6.0f;
}

template <bool sound>
__global__ void missing_syncwarp(float* out) {
  DWCONV_SHARED_MEMORY(float, shared);
  shared[threadIdx.x] = 1.0f;
  if (sound) __syncwarp();
  out[blockIdx.x * blockDim.x + threadIdx.x] = shared[threadIdx.x ^ 31];
}

// The last block to finish adds up what all have written.
template <bool sound>
__global__ void last_block_without_fence(float* out, float* partials, unsigned* finished) {
  if (threadIdx.x != 0) return;
  partials[blockIdx.x] = 1.0f;
  if (sound) __threadfence();
  if (atomicAdd(finished, 1u) != gridDim.x - 1) return;
  __threadfence();
  float sum = 0.0f;
  for (unsigned block = 0; block < gridDim.x; ++block) sum += partials[block];
  *out = sum / float(gridDim.x);
}

const char* kWrong = "wrong results";

// Global memory of exactly n floats, so that AddressSanitizer knows where it ends.
struct Memory {
  explicit Memory(int n, float value) : data(new float[size_t(n)]), n(n) {
    for (int i = 0; i < n; ++i) data[i] = value;
  }
  const char* all_one() const {
    for (int i = 0; i < n; ++i) {
      if (!(data[i] == 1.0f)) return kWrong;
    }
    return nullptr;
  }
  std::unique_ptr<float[]> data;
  int n;
};

template <class Kernel>
const char* per_thread(Kernel kernel, size_t shared_bytes) {
  Memory out(kThreads * kBlocks, -1.0f);
  const char* error = launch(kernel, dim3(kBlocks), dim3(kThreads), shared_bytes, nullptr, out.data.get());
  return error ? error : out.all_one();
}

template <bool sound>
const char* run_global_bounds() {
  constexpr int kSize = kThreads * kBlocks - 2;
  Memory out(kSize, -1.0f);
  const char* error = launch(global_bounds<sound>, dim3(kBlocks), dim3(kThreads), 0, nullptr, out.data.get(), kSize);
  for (int i = 0; i < kSize && !error; ++i) error = out.data[i] == float(i) ? nullptr : kWrong;
  return error;
}
template <bool sound>
const char* run_shared_bounds() {
  return per_thread(shared_bounds<sound>, kThreads * sizeof(float));
}
template <bool sound>
const char* run_missing_syncthreads() {
  return per_thread(missing_syncthreads<sound>, kThreads * sizeof(float));
}
template <bool sound>
const char* run_divergent_barrier() {
  return per_thread(divergent_barrier<sound>, 0);
}
template <bool sound>
const char* run_missing_sync_before_warp_sums() {
  Memory out(kBlocks, -1.0f);
  const char* error = launch(missing_sync_before_warp_sums<sound>, dim3(kBlocks), dim3(kThreads),
                             kThreads / 32 * sizeof(float), nullptr, out.data.get());
  return error ? error : out.all_one();
}
template <bool sound>
const char* run_add_between_blocks() {
  Memory out(1, 0.0f);
  const char* error = launch(add_between_blocks<sound>, dim3(kBlocks), dim3(kThreads), 0, nullptr, out.data.get());
  return error ? error : out.all_one();
}
template <bool sound>
const char* run_missing_async_wait() {
  struct alignas(16) Input {
    float values[4 * kThreads];
  };
  const auto in = std::make_unique<Input>();
  for (float& value : in->values) value = 1.0f;
  Memory out(kThreads * kBlocks, -1.0f);
  const char* error = launch(missing_async_wait<sound>, dim3(kBlocks), dim3(kThreads), 4 * kThreads * sizeof(float),
                             nullptr, out.data.get(), static_cast<const float*>(in->values));
  return error ? error : out.all_one();
}
template <bool sound>
const char* run_misaligned_vector() {
  struct alignas(16) Input {
    float values[4 * kThreads];
  };
  const auto in = std::make_unique<Input>();
  for (float& value : in->values) value = 1.0f;
  Memory out(kThreads * kBlocks, -1.0f);
  const char* error = launch(misaligned_vector<sound>, dim3(kBlocks), dim3(kThreads), 0, nullptr, out.data.get(),
                             static_cast<const float*>(in->values));
  return error ? error : out.all_one();
}
template <bool sound>
const char* run_misaligned_shared_vector() {
  return per_thread(misaligned_shared_vector<sound>, (kThreads + 1) * sizeof(float));
}
template <bool sound>
const char* run_write_after_read() {
  return per_thread(write_after_read<sound>, kThreads * sizeof(float));
}
template <bool sound>
const char* run_missing_syncwarp() {
  return per_thread(missing_syncwarp<sound>, kThreads * sizeof(float));
}
template <bool sound>
const char* run_last_block_without_fence() {
  Memory out(1, -1.0f), partials(kBlocks, 0.0f);
  unsigned finished = 0;
  const char* error = launch(last_block_without_fence<sound>, dim3(kBlocks), dim3(kThreads), 0, nullptr, out.data.get(),
                             partials.data.get(), &finished);
  return error ? error : out.all_one();
}

using Run = const char* (*)();

#define DWCONV_PLANTED(name) \
  {#name, run_##name<false>}, { "sound_" #name, run_##name<true> }

const std::map<std::string, Run> runs = {
    DWCONV_PLANTED(global_bounds),
    DWCONV_PLANTED(shared_bounds),
    DWCONV_PLANTED(missing_syncthreads),
    DWCONV_PLANTED(divergent_barrier),
    DWCONV_PLANTED(missing_sync_before_warp_sums),
    DWCONV_PLANTED(add_between_blocks),
    DWCONV_PLANTED(missing_async_wait),
    DWCONV_PLANTED(misaligned_vector),
    DWCONV_PLANTED(misaligned_shared_vector),
    DWCONV_PLANTED(write_after_read),
    DWCONV_PLANTED(missing_syncwarp),
    DWCONV_PLANTED(last_block_without_fence),
};

}  // namespace

std::vector<std::string> planted_bugs() {
  std::vector<std::string> names;
  for (const auto& [name, run] : runs) {
    if (name.rfind("sound_", 0) != 0) names.push_back(name);
  }
  return names;
}

const char* run_planted(const char* name) { return runs.at(name)(); }

}  // namespace dwconv::test
