// The limits of this machine, for the benchmark: multiply-adds a second and bytes a second, in the ISA in use.
//
// Plain C for ctypes, which releases Python's lock: the caller starts the threads and reads the clock.
#include <algorithm>
#include <cstdint>
#include <cstring>

#include "../binding/introspect.h"
#include "../cpu/registry.h"
#include "probe.h"

#define DWCONV_PER_TARGET "../../probe/loops.h"
#include "../cpu/simd/for_each_target.h"

namespace dwconv {
namespace {

const Loops& active_loops() { return DWCONV_OF_TARGET(active_isa(), loops, DWCONV_DEFAULT_ISA::loops); }

struct Stream {
  void (*copy)(void* to, const void* from, int64_t bytes);
  void (*fill)(void* to, int64_t bytes);
};

// method: 0 the C library, 1 vector loops, 2 non-temporal vector loops.
Stream stream_of(int64_t method) {
  if (method == 0) {
    return {[](void* to, const void* from, int64_t bytes) { std::memcpy(to, from, size_t(bytes)); },
            [](void* to, int64_t bytes) { std::memset(to, 1, size_t(bytes)); }};
  }
  const Loops& loops = active_loops();
  return {loops.copy[method - 1], loops.fill[method - 1]};
}

constexpr int64_t kLine = 64;
constexpr int64_t kBlock = 4096;  // stays in L1

int64_t whole_lines(double bytes) { return int64_t(bytes / kLine) * kLine; }

}  // namespace
}  // namespace dwconv

// Multiply-adds on registers; returns the FLOPs done. dtype: 0 f32, 1 f64.
DWCONV_EXPORT double dwconv_probe_fma(int64_t dtype, int64_t iterations) {
  return dwconv::active_loops().fma[dtype](iterations);
}

// Reads `read_bytes` and writes `write_bytes`, as evenly mixed as a kernel would: what both have is copied, the rest
// only read or only written. The buffers are aligned to 64 bytes and the sizes multiples of 64.
DWCONV_EXPORT void dwconv_probe_stream(int64_t method, char* to, int64_t write_bytes, const char* from,
                                       int64_t read_bytes, int64_t repeats) {
  using namespace dwconv;
  const Stream stream = stream_of(method);
  // One copy when there is as much to read as to write: large ones are memcpy's strength.
  const int64_t blocks = read_bytes == write_bytes ? 1 : std::max(read_bytes, write_bytes) / kBlock + 1;
  for (int64_t repeat = 0; repeat < repeats; ++repeat) {
    int64_t read = 0, written = 0;
    for (int64_t block = 1; block <= blocks; ++block) {
      const double part = double(block) / double(blocks);
      const int64_t more_read = (block == blocks ? read_bytes : whole_lines(double(read_bytes) * part)) - read;
      const int64_t more_written = (block == blocks ? write_bytes : whole_lines(double(write_bytes) * part)) - written;
      const int64_t copied = std::min(more_read, more_written);
      stream.copy(to + written, from + read, copied);
      if (more_read > copied) active_loops().read(from + read + copied, more_read - copied);
      if (more_written > copied) stream.fill(to + written + copied, more_written - copied);
      read += more_read;
      written += more_written;
    }
  }
}
