// Launches written down instead of run: what tools/cuda_gate/run.py gives to the machine code.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "emulator.h"

namespace emulator {

struct Recorded {
  uintptr_t kernel;  // its address, from where the library is loaded
  dim3 grid, block;
  size_t shared_bytes;
  std::string parameters;  // as a device finds them: each at a multiple of its alignment
};

// Between the two, launches do nothing else.
void start_recording();
std::vector<Recorded> stop_recording();

}  // namespace emulator
