#pragma once
#include <vector>

#include "../../../csrc/kernel.h"

namespace dwconv::test {

// In the order of the CUDA registry.
const std::vector<Kernel>& registered();

}  // namespace dwconv::test
