// Times of the same kernels that the checker checks, on given shapes.
#pragma once
#include <vector>

#include "kernel.h"
#include "shapes.h"

namespace dwconv::test {

// Prints a line for each kernel and shape that it takes: best and median time of a call on one thread, buffers warm.
// The kernels of a shape take turns, so that what slows the machine for a while slows all of them.
void bench(const std::vector<const Kernel*>& kernels, const std::vector<NamedShape>& shapes, double seconds_each);

}  // namespace dwconv::test
