// Kernels with one planted fault each, to prove that the nets of this suite hold.
#pragma once
#include "kernel.h"

namespace dwconv::test {

KernelList planted_kernels();

}  // namespace dwconv::test
