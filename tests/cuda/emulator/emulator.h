// CUDA on a CPU, for tests: the names that the kernels in csrc/cuda use, so that a C++20 compiler takes the same .cu and
// .cuh files as nvcc. Each CUDA thread is a fiber; emulator.cpp schedules them and knows what a launch may not do.
//
// It cannot see time, coalescing, bank conflicts, registers or what nvcc makes of the text.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

#include "half.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};

namespace emulator {

// Where the running fiber is. Fibers of a process run on one thread, one at a time, so plain variables do.
extern dim3 thread_index, block_index, block_size, grid_size;

void* shared_memory();
void block_barrier();
void warp_barrier(unsigned mask);
// Each lane of the mask gives a value and gets that of lane `source`; `ballot` gets a bit for each.
uint64_t exchange(unsigned mask, uint64_t value, unsigned source);
unsigned ballot(unsigned mask, bool predicate);
unsigned lane();
void fence();
// Atomics order nothing unless fences stand on both sides. `loop` tries until the update takes.
unsigned atomic_add(unsigned* address, unsigned value);
float atomic_add(float* address, float value);
// Copies of 16 bytes that happen when the thread waits for them, not before.
void async_copy(void* destination, const void* source);
void async_commit();
// Ends the launch, as an address that is no multiple of the access does on a device.
[[noreturn]] void misaligned(size_t bytes);
// Whether somebody wants to know how wide accesses are, and what tells them.
extern bool watching;
void watched(const void* address, size_t bytes);
// Every vector comes here, of global and of shared memory, and so does all that has an intrinsic.
inline void check_aligned(const void* address, size_t bytes) {
  if (reinterpret_cast<uintptr_t>(address) % bytes) misaligned(bytes);
  if (watching) watched(address, bytes);
}
// The next copy that is due when all but the last groups_left groups have landed; false: none is left.
bool async_next(int groups_left, void** destination, const void** source);
inline void async_wait(int groups_left) {
  void* destination;
  const void* source;
  while (async_next(groups_left, &destination, &source)) std::memcpy(destination, source, 16);
}

// nullptr, or what the launch or a kernel did that CUDA does not allow. The message lives until the next launch.
const char* run(dim3 grid, dim3 block, size_t shared_bytes, void (*body)(void*), void* context);

// Of record.h.
bool recording();
void record(void* kernel, dim3 grid, dim3 block, size_t shared_bytes, std::string parameters);

// Some memory, and the bytes of the widest access to it by a launch since watch().
struct Watched {
  const void* begin;
  size_t bytes;
  size_t widest = 0;
};
void watch(std::vector<Watched> memory);
std::vector<Watched> stop_watching();

enum class Order : int { ascending, descending, random };
// In which order the threads of a block get their turns, and the blocks of a grid theirs.
void set_order(Order order, uint64_t seed);

}  // namespace emulator

#define threadIdx (::emulator::thread_index)
#define blockIdx (::emulator::block_index)
#define blockDim (::emulator::block_size)
#define gridDim (::emulator::grid_size)

#define DWCONV_SHARED_MEMORY(T, name) T* const name = static_cast<T*>(::emulator::shared_memory())

inline void __syncthreads() { emulator::block_barrier(); }
inline void __syncwarp(unsigned mask = 0xffffffffu) { emulator::warp_barrier(mask); }
inline void __threadfence() { emulator::fence(); }

template <class T>
inline T __ldg(const T* address) {
  emulator::check_aligned(address, sizeof(T));
  return *address;
}

template <class T>
inline void __stwb(T* address, T value) {
  emulator::check_aligned(address, sizeof(T));
  *address = value;
}

namespace emulator {
template <class T>
inline T shuffle(unsigned mask, T value, unsigned source) {
  static_assert(sizeof(T) <= 8);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = exchange(mask, bits, source);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}
}  // namespace emulator

template <class T>
inline T __shfl_sync(unsigned mask, T value, int source) {
  return emulator::shuffle(mask, value, unsigned(source) % 32);
}
template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int lanes) {
  return emulator::shuffle(mask, value, emulator::lane() ^ unsigned(lanes));
}
// A lane whose source is outside the warp keeps its own value.
template <class T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned lanes) {
  const unsigned source = emulator::lane() + lanes;
  return emulator::shuffle(mask, value, source < 32 ? source : emulator::lane());
}
template <class T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned lanes) {
  const unsigned lane = emulator::lane();
  return emulator::shuffle(mask, value, lane >= lanes ? lane - lanes : lane);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) { return emulator::ballot(mask, predicate != 0); }
inline unsigned atomicAdd(unsigned* address, unsigned value) { return emulator::atomic_add(address, value); }
inline float atomicAdd(float* address, float value) { return emulator::atomic_add(address, value); }

inline uint64_t __umul64hi(uint64_t a, uint64_t b) { return uint64_t((static_cast<unsigned __int128>(a) * b) >> 64); }
inline float __expf(float v) { return std::exp(v); }
inline float __fdividef(float a, float b) { return a / b; }
using std::erf, std::exp, std::fma, std::tanh;

struct CUstream_st;

namespace dwconv::cuda {

// Runs the grid at once; see device.cuh.
template <class... Parameters, class... Arguments>
const char* launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, CUstream_st*,
                   Arguments... arguments) {
  struct Call {
    void (*kernel)(Parameters...);
    std::tuple<Parameters...> parameters;
  } call = {kernel, {Parameters(arguments)...}};
  if (emulator::recording()) {
    std::string bytes;
    const auto append = [&bytes](const auto& parameter) {
      bytes.resize((bytes.size() + alignof(decltype(parameter)) - 1) / alignof(decltype(parameter)) *
                   alignof(decltype(parameter)));
      bytes.append(reinterpret_cast<const char*>(&parameter), sizeof(parameter));
    };
    std::apply([&](const auto&... each) { (append(each), ...); }, call.parameters);
    emulator::record(reinterpret_cast<void*>(kernel), grid, block, shared_bytes, std::move(bytes));
    return nullptr;
  }
  const auto body = [](void* context) {
    const Call& call = *static_cast<const Call*>(context);
    std::apply(call.kernel, call.parameters);
  };
  return emulator::run(grid, block, shared_bytes, body, &call);
}

}  // namespace dwconv::cuda
