// How many planes a block of kernel `planes` has, a warp of 32 threads.
#pragma once
#include <cstdint>

namespace dwconv::cuda {

// A thread has a whole plane of 7x7, or half of one of 14x14.
constexpr int64_t planes_of_block(int64_t result_rows) { return result_rows == 7 ? 32 : 16; }

}  // namespace dwconv::cuda
