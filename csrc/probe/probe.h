// What loops.h offers for a target. Pairs are plain stores and non-temporal ones.
#pragma once
#include <cstdint>

namespace dwconv {

struct Loops {
  double (*fma[2])(int64_t iterations);  // f32, f64; returns the FLOPs done
  void (*copy[2])(void* to, const void* from, int64_t bytes);
  void (*fill[2])(void* to, int64_t bytes);
  void (*read)(const void* from, int64_t bytes);
};

}  // namespace dwconv
