// Runs of whole planes between global and shared memory: of as many bytes as make whole vectors though no row does.
#pragma once
#include "../device/device.cuh"

namespace dwconv::cuda {

template <class T>
__device__ __forceinline__ void copy_vector(T* to, const T* from, bool to_shared) {
  if (to_shared) {
    async_copy16(to, from);
  } else {
    __stwb(aligned<uint4>(to), *aligned<const uint4>(from));
  }
}

// Whether runs that begin at the address and at whole vectors after it are copied by vectors.
template <class T>
__host__ __device__ __forceinline__ bool begins_at_vector(const T* address) {
  return reinterpret_cast<uintptr_t>(address) % 16 == 0;
}

// `vectors`: both addresses begin at one.
template <class T>
__device__ __forceinline__ void copy_run(T* to, const T* from, int count, bool vectors, int thread, int threads,
                                         bool to_shared) {
  constexpr int kVector = 16 / int(sizeof(T));
  const int vector_count = vectors ? count / kVector : 0;
  for (int i = thread; i < vector_count; i += threads) copy_vector(to + i * kVector, from + i * kVector, to_shared);
  for (int i = vector_count * kVector + thread; i < count; i += threads) to[i] = from[i];
}

// The same of a number of aligned vectors that is known, unrolled.
template <int kCount, int kThreads, class T>
__device__ __forceinline__ void copy_full_run(T* to, const T* from, int thread, bool to_shared) {
  constexpr int kVector = 16 / int(sizeof(T)), kStep = kThreads * kVector, kLast = kCount / kStep * kStep;
  static_assert(kCount % kVector == 0);
  to += thread * kVector, from += thread * kVector;
#pragma unroll
  for (int i = 0; i < kLast; i += kStep) copy_vector(to + i, from + i, to_shared);
  if (thread < (kCount - kLast) / kVector) copy_vector(to + kLast, from + kLast, to_shared);
}

}  // namespace dwconv::cuda
