// What kernel bodies use of CUDA, and the only two places where they make way for the emulator of tests/cuda/emulator, which
// compiles the same text with a C++20 compiler and runs it on the CPU: launch() and DWCONV_SHARED_MEMORY. Inline PTX has a
// version for the host, and so has aligned(), which checks there what a device would trap on.
#pragma once
#include <cstdint>

#include "../kernel.h"

#ifdef DWCONV_EMULATED
#include "emulator.h"
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

// Dynamic shared memory as an array of T. Once in a kernel; all shared memory is dynamic, so that the emulator can fill
// it with NaN before each block.
#define DWCONV_SHARED_MEMORY(T, name)                            \
  extern __shared__ __align__(16) unsigned char dwconv_shared[]; \
  T* const name = reinterpret_cast<T*>(dwconv_shared)

namespace dwconv::cuda {

// Puts kernel<<<grid, block, shared_bytes, stream>>>(arguments...) on the stream. nullptr, or the error in words.
template <class... Parameters, class... Arguments>
const char* launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, Stream stream,
                   Arguments... arguments) {
  constexpr size_t kWithoutOptIn = 48 * 1024;
  cudaError_t error = cudaSuccess;
  if (shared_bytes > kWithoutOptIn) {
    error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_bytes));
  }
  if (error == cudaSuccess) {
    cudaLaunchConfig_t config = {};
    config.gridDim = grid, config.blockDim = block, config.dynamicSmemBytes = shared_bytes, config.stream = stream;
    error = cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...);
  }
  if (error == cudaSuccess) return nullptr;
  (void)cudaGetLastError();  // ours to report: the next launch of someone else must not find it
  return cudaGetErrorString(error);
}

}  // namespace dwconv::cuda
#endif

namespace dwconv::cuda {

using f16 = __half;
using bf16 = __nv_bfloat16;

// Memory as words that are wider than its elements: the address must be a multiple of a word's size.
template <class Word, class T>
__device__ __forceinline__ Word* aligned(T* address) {
#if defined(DWCONV_EMULATED)
  ::emulator::check_aligned(address, sizeof(Word));
#endif
  return reinterpret_cast<Word*>(address);
}

// Copies 16 aligned bytes from global to shared memory, without a register on the way where the device can (8.0 on). They
// have landed for the thread after a wait, for the block after a barrier that follows.
__device__ __forceinline__ void async_copy16(void* shared, const void* global) {
#if defined(DWCONV_EMULATED)
  ::emulator::async_copy(shared, global);
#elif __CUDA_ARCH__ >= 800
  const unsigned address = unsigned(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(global));
#else
  *aligned<uint4>(shared) = *aligned<const uint4>(global);
#endif
}
__device__ __forceinline__ void async_commit() {
#if defined(DWCONV_EMULATED)
  ::emulator::async_commit();
#elif __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;");
#endif
}
// Until all but the last `groups_left` groups have landed.
template <int groups_left>
__device__ __forceinline__ void async_wait() {
#if defined(DWCONV_EMULATED)
  ::emulator::async_wait(groups_left);
#elif __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(groups_left) : "memory");
#endif
}

// What a dtype accumulates in.
template <class T>
struct AccumulatorOf {
  using type = float;
};
template <>
struct AccumulatorOf<double> {
  using type = double;
};
template <class T>
using Accumulator = typename AccumulatorOf<T>::type;

__device__ __forceinline__ float widen(float v) { return v; }
__device__ __forceinline__ double widen(double v) { return v; }
__device__ __forceinline__ float widen(f16 v) { return __half2float(v); }
__device__ __forceinline__ float widen(bf16 v) { return __bfloat162float(v); }

template <class T>
__device__ __forceinline__ T narrow(Accumulator<T> v) {
  if constexpr (sizeof(T) == sizeof(Accumulator<T>)) {
    return v;
  } else if constexpr (__is_same(T, f16)) {
    return __float2half_rn(v);
  } else {
    return __float2bfloat16_rn(v);
  }
}

__device__ __forceinline__ float multiply_add(float a, float b, float c) { return fmaf(a, b, c); }
__device__ __forceinline__ double multiply_add(double a, double b, double c) { return fma(a, b, c); }

__host__ __device__ constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Launch dimensions that every device takes; what is larger is walked by loops in the kernels.
constexpr int64_t kMaxGridX = (int64_t(1) << 31) - 1, kMaxGridYZ = 65535;

}  // namespace dwconv::cuda
