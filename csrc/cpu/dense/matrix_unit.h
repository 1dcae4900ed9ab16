// The matrix unit of x86 processors (AMX): whether there is one, its tiles and what it does with them.
//
// Instructions are written out, so that the target stays AVX-512. The compiler knows nothing of tiles and keeps none.
#pragma once
#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace dwconv {

// Whether the processor multiplies tiles of bf16 and the kernel keeps tiles for this process, which has to ask for it.
inline bool ask_for_matrix_unit() {
#if defined(__linux__)
  unsigned a, b, c, d;
  constexpr unsigned kBf16 = 1u << 22, kTiles = 1u << 24;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & (kBf16 | kTiles)) != (kBf16 | kTiles)) return false;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

inline bool has_matrix_unit() {
  static const bool has = ask_for_matrix_unit();
  return has;
}

// The sizes of the eight tiles of a thread. To load them zeroes all tiles.
class alignas(64) MatrixTiles {
 public:
  MatrixTiles() {
    std::memset(bytes_, 0, sizeof bytes_);
    bytes_[0] = 1;  // the palette
  }
  void set(int tile, int64_t rows, int64_t row_bytes) {
    const uint16_t bytes = uint16_t(row_bytes);
    std::memcpy(bytes_ + 16 + 2 * tile, &bytes, sizeof bytes);
    bytes_[48 + tile] = uint8_t(rows);
  }
  void load() const { asm volatile("ldtilecfg %0" ::"m"(bytes_)); }

 private:
  uint8_t bytes_[64];
};

// The rows of a tile, `pitch` bytes apart.
template <int tile>
inline __attribute__((always_inline)) void load_rows(const void* rows, int64_t pitch) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(rows), "r"(pitch), "i"(tile) : "memory");
}

// Rows of 16 floats to rows of 32.
template <int tile>
inline __attribute__((always_inline)) void store_rows(float* rows) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(rows), "r"(int64_t(128)), "i"(tile) : "memory");
}

// Tile `sums` of floats += tile `a` * tile `b` of pairs of bf16.
template <int sums, int a, int b>
inline __attribute__((always_inline)) void multiply_tiles() {
  asm volatile("tdpbf16ps %%tmm%c0, %%tmm%c1, %%tmm%c2" ::"i"(b), "i"(a), "i"(sums));
}

}  // namespace dwconv

#endif
