// Which kernels are meant, which buffers they get, and where those lie.
#pragma once
#include "guarded.h"
#include "operands.h"

namespace dwconv::test {

// How the operands of sequences lie that need not be dense.
struct Spacing {
  int64_t gap = 0;    // numbers between rows, between images and, in a cache and the input of a step, between positions
  bool dense = true;  // but not between those of the innermost dimension
  bool input_channels_last = false, cache_channels_last = false;  // of a step
};

struct Form {
  Operation operation;
  DType dtype;
  Layout layout;
  Placement placement;
  Given given;
  Activation activation = Activation::none;
  bool in_place = false;  // of channel_scale: the result lies where the input is
  Spacing spacing = {};   // of sequences
};

}  // namespace dwconv::test
