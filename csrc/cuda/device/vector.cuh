// N neighbouring elements of memory as one access, as wide as 16 bytes allow.
#pragma once
#include "device.cuh"

namespace dwconv::cuda {

template <int bytes>
struct WordOf;
template <>
struct WordOf<2> {
  using type = unsigned short;
};
template <>
struct WordOf<4> {
  using type = unsigned;
};
template <>
struct WordOf<8> {
  using type = uint2;
};
template <>
struct WordOf<16> {
  using type = uint4;
};

template <class T, int N>
struct Vector {
  static constexpr int kBytes = sizeof(T) * N < 16 ? int(sizeof(T)) * N : 16;  // of an access, and its alignment
  using Word = typename WordOf<kBytes>::type;
  static constexpr int kWords = int(sizeof(T)) * N / kBytes;
  union {
    T values[N];
    Word words[kWords];
  };
#if defined(DWCONV_EMULATED)
  Vector() { std::memset(values, 0xff, sizeof(values)); }  // NaN, for who uses what it has not read
#else
  __device__ __forceinline__ Vector() {}
#endif
  __device__ __forceinline__ T& operator[](int i) { return values[i]; }
};

// Through the read-only path: what a launch reads it does not write, so loads may move across stores.
template <int N, class T>
__device__ __forceinline__ Vector<T, N> read(const T* address) {
  Vector<T, N> vector;
  using Word = typename Vector<T, N>::Word;
#pragma unroll
  for (int i = 0; i < Vector<T, N>::kWords; ++i) vector.words[i] = __ldg(aligned<const Word>(address) + i);
  return vector;
}

// By the intrinsic, since nvcc splits a plain store of a union's member into its elements.
template <int N, class T>
__device__ __forceinline__ void write(T* address, const Vector<T, N>& vector) {
  static_assert(Vector<T, N>::kWords == 1);
  __stwb(aligned<typename Vector<T, N>::Word>(address), vector.words[0]);
}

// N neighbours of shared memory, read anew at each call: the compiler must not keep them in registers.
template <int N>
__device__ __forceinline__ void load_shared(const float* address, float (&out)[N]) {
  static_assert(N == 1 || N == 2 || N % 4 == 0);
#if defined(DWCONV_EMULATED)
  ::emulator::check_aligned(address, N < 4 ? sizeof(out) : 16);
  for (int i = 0; i < N; ++i) out[i] = address[i];
#else
  const unsigned shared = unsigned(__cvta_generic_to_shared(address));
  if constexpr (N == 1) {
    asm volatile("ld.shared.f32 %0, [%1];" : "=f"(out[0]) : "r"(shared));
  } else if constexpr (N == 2) {
    asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(out[0]), "=f"(out[1]) : "r"(shared));
  } else {
#pragma unroll
    for (int i = 0; i < N; i += 4) {
      asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
                   : "=f"(out[i]), "=f"(out[i + 1]), "=f"(out[i + 2]), "=f"(out[i + 3])
                   : "r"(shared + 4 * i));
    }
  }
#endif
}

// Whether rows of so many elements, from the address on, are whole vectors of N that read<N> and write<N> take. N is what the
// kernel accesses there, which is seldom the same for all that it reads and writes: at stride 2 sources are twice as wide
// as results.
template <int N, class T>
bool in_vectors(const T* address, int64_t row) {
  return row % N == 0 && reinterpret_cast<uintptr_t>(address) % Vector<T, N>::kBytes == 0;
}

}  // namespace dwconv::cuda
