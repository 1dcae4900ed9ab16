// Tensor cores, from 8.0 on: products of 16-bit matrices by a warp, whose lanes hold fragments of them as PTX lays them out for
// mma.m16n8k16. The host's versions exchange the fragments between lanes, so that the emulator runs the same kernels.
#pragma once
#include "device.cuh"

namespace dwconv::cuda {

// Four 8 x 8 matrices of 16-bit elements from shared memory. Lane i gives the address of row i % 8 of matrix i / 8, aligned
// to 16 bytes, and gets from each matrix the elements 2*(i % 4) and the next of row i / 4.
__device__ __forceinline__ void load_matrices(const void* row, unsigned (&to)[4]) {
#if defined(DWCONV_EMULATED)
  ::emulator::check_aligned(row, 16);
  const uint64_t mine = reinterpret_cast<uint64_t>(row);
  const int lane = int(::emulator::lane());
  for (int matrix = 0; matrix < 4; ++matrix) {
    const uint64_t its = __shfl_sync(0xffffffffu, mine, matrix * 8 + lane / 4);
    to[matrix] = reinterpret_cast<const unsigned*>(its)[lane % 4];
  }
#elif __CUDA_ARCH__ >= 800
  const unsigned address = unsigned(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(address));
#else
  __trap();
#endif
}

#if defined(DWCONV_EMULATED)
template <class T>
float half_of(unsigned pair, int which) {
  T value;
  value.bits = uint16_t(pair >> (16 * which));
  return widen(value);
}
#endif

// sums (16 x 8) += a (16 x 16) * b (16 x 8), in float32. With i = lane: a[j] has row i / 4 + 8 * (j % 2), elements 8 * (j / 2)
// + 2 * (i % 4) and the next; b[j] column i / 4, elements 8 * j + 2 * (i % 4) and the next; sums[j] row i / 4 + 8 * (j / 2),
// column 2 * (i % 4) + j % 2.
template <class T>
__device__ __forceinline__ void multiply_matrices(float (&sums)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#if defined(DWCONV_EMULATED)
  const int lane = int(::emulator::lane());
  for (int element = 0; element < 16; element += 2) {
    const int fragment = element / 8, from = element % 8 / 2;
    const uint64_t rows =
        __shfl_sync(0xffffffffu, uint64_t(a[2 * fragment]) | uint64_t(a[2 * fragment + 1]) << 32, lane / 4 * 4 + from);
    for (int column = 0; column < 2; ++column) {
      const unsigned taps = __shfl_sync(0xffffffffu, b[fragment], (2 * (lane % 4) + column) * 4 + from);
      for (int row = 0; row < 2; ++row) {
        for (int i = 0; i < 2; ++i) {
          sums[2 * row + column] += half_of<T>(unsigned(rows >> (32 * row)), i) * half_of<T>(taps, i);
        }
      }
    }
  }
#elif __CUDA_ARCH__ >= 800
  if constexpr (__is_same(T, f16)) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
        "%3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  } else {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
#else
  __trap();
#endif
}

}  // namespace dwconv::cuda
