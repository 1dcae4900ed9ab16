// Kernels with one planted fault each, to prove that the nets of this suite hold.
#pragma once
#include "kernel.h"

namespace dwconv::test {

// Of a depthwise convolution's output, named for their faults; of the operations of blocks, of
// BatchNorm and pointwise convolutions in training, and of sequences, named for both.
KernelList planted_kernels();
KernelList planted_block_kernels();
KernelList planted_training_kernels();
KernelList planted_sequence_kernels();

}  // namespace dwconv::test
