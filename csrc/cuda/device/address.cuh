// Addresses as nvcc should compute them: where they stand, and in one instruction each.
#pragma once
#include "device.cuh"

namespace dwconv::cuda {

// A pointer that nvcc takes as it is. Otherwise it keeps the index instead, and scales and adds it for each access.
template <class T>
__device__ __forceinline__ T* opaque(T* address) {
#if !defined(DWCONV_EMULATED)
  asm volatile("" : "+l"(address));
#endif
  return address;
}

// The same of an index, for memory whose kind nvcc has to see in the pointer.
__device__ __forceinline__ int opaque(int index) {
#if !defined(DWCONV_EMULATED)
  asm volatile("" : "+r"(index));
#endif
  return index;
}

// base + row * pitch_bytes, computed where it stands and in one instruction.
template <class T>
__device__ __forceinline__ T* row_at(T* base, int row, int pitch_bytes) {
#if defined(DWCONV_EMULATED)
  return reinterpret_cast<T*>(reinterpret_cast<intptr_t>(base) + int64_t(row) * pitch_bytes);
#else
  T* address;
  asm volatile("mad.wide.s32 %0, %1, %2, %3;" : "=l"(address) : "r"(row), "r"(pitch_bytes), "l"(base));
  return address;
#endif
}

// address + pitch elements. The bytes of an element come as a variable, which keeps this a single instruction.
template <class T>
__device__ __forceinline__ T* next_row(T* address, int pitch, int element_bytes) {
  return row_at(address, pitch, element_bytes);
}

// Two branches with one condition stay two.
__device__ __forceinline__ void compiler_fence() { asm volatile("" ::: "memory"); }

}  // namespace dwconv::cuda
