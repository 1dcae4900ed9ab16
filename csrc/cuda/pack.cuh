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
struct Pack {
  static constexpr int kBytes = sizeof(T) * N < 16 ? int(sizeof(T)) * N : 16;  // of an access, and its alignment
  using Word = typename WordOf<kBytes>::type;
  static constexpr int kWords = int(sizeof(T)) * N / kBytes;
  union {
    T values[N];
    Word words[kWords];
  };
#if defined(DWCONV_EMULATED)
  Pack() { std::memset(values, 0xff, sizeof(values)); }  // NaN, for who uses what it has not read
#else
  __device__ __forceinline__ Pack() {}
#endif
  __device__ __forceinline__ T& operator[](int i) { return values[i]; }
};

// Through the read-only path: what a launch reads it does not write, so loads may move across stores.
template <int N, class T>
__device__ __forceinline__ Pack<T, N> read(const T* address) {
  Pack<T, N> pack;
  using Word = typename Pack<T, N>::Word;
#pragma unroll
  for (int i = 0; i < Pack<T, N>::kWords; ++i) pack.words[i] = __ldg(aligned<const Word>(address) + i);
  return pack;
}

// By the intrinsic, since nvcc splits a plain store of a union's member into its elements.
template <int N, class T>
__device__ __forceinline__ void write(T* address, const Pack<T, N>& pack) {
  static_assert(Pack<T, N>::kWords == 1);
  __stwb(aligned<typename Pack<T, N>::Word>(address), pack.words[0]);
}

// Eight sums from shared memory, read anew at each call: the compiler must not keep what is read in registers.
__device__ __forceinline__ void load_shared_8(const float* address, float (&out)[8]) {
#if defined(DWCONV_EMULATED)
  ::emulator::check_aligned(address, 16);
  for (int i = 0; i < 8; ++i) out[i] = address[i];
#else
  const unsigned shared = unsigned(__cvta_generic_to_shared(address));
  asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(out[0]), "=f"(out[1]), "=f"(out[2]), "=f"(out[3])
               : "r"(shared));
  asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(out[4]), "=f"(out[5]), "=f"(out[6]), "=f"(out[7])
               : "r"(shared + 16));
#endif
}

// Whether rows of so many elements, from the address on, are whole packs of N that read<N> and write<N> take. N is what the
// kernel accesses there, which is seldom the same for all that it reads and writes: at stride 2 sources are twice as wide
// as results.
template <int N, class T>
bool in_packs(const T* address, int64_t row) {
  return row % N == 0 && reinterpret_cast<uintptr_t>(address) % Pack<T, N>::kBytes == 0;
}

}  // namespace dwconv::cuda
