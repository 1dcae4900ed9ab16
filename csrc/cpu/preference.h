// Which of the kernels that can compute a shape is preferred: rows of a table, one table for each family (its choice.h).
//
// Kernels come in the order of their list, the first runs. A row says where a kernel lets those after it go first, and the
// measurement that decided. `supports` says what a kernel can compute, and nothing about its rivals.
#pragma once
#include "axis/gather.h"

namespace dwconv {

// What a row looks at.
struct Facts {
  Operation operation;
  DType dtype;
  int64_t lanes;  // of the kernel's vectors, in values of the accumulator's type
  const Shape& shape;
  Gather gather;  // the shape as forward or grad_input see it

  Facts(const Kernel& kernel, const Shape& s)
      : operation(kernel.operation), dtype(kernel.dtype), lanes(kernel.lanes), shape(s), gather(operation, s) {}

  bool half() const { return dtype == DType::bf16 || dtype == DType::f16; }
  int64_t element_bytes() const { return half() ? 2 : dtype == DType::f32 ? 4 : 8; }
  int64_t vector_bytes() const { return lanes * (dtype == DType::f64 ? 8 : 4); }
  // Elements of a source plane and a result plane together.
  int64_t plane() const { return gather.source_plane() + gather.result_plane(); }
  // Whether two rows of results fit into a vector.
  bool narrow() const { return 2 * gather.cols.results <= lanes; }
  bool strided() const { return shape.stride_h * shape.stride_w > 1; }
  bool dilated() const { return shape.dilation_h * shape.dilation_w > 1; }
};

struct Preference {
  const char* method;
  bool (*passed_over)(const Facts&);
  const char* because;
};

struct PreferenceList {
  const Preference* begin_ = nullptr;
  const Preference* end_ = nullptr;
  const Preference* begin() const { return begin_; }
  const Preference* end() const { return end_; }
};

}  // namespace dwconv
