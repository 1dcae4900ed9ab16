// Times of the same kernels that the checker checks, on the shapes of cases.
#pragma once
#include <vector>

#include "checks.h"
#include "kernel.h"

namespace dwconv::test {

// Prints a line for each kernel and case that it takes: best and median time of a call on one thread, buffers warm.
// The kernels of a case take turns, so that what slows the machine for a while slows all of them.
void bench(const std::vector<const Kernel*>& kernels, const std::vector<Case>& cases, double seconds_each);

}  // namespace dwconv::test
