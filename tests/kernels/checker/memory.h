// The buffers of one call, between guards: operands stored from float64, results and workspace poisoned.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "../call.h"
#include "number.h"
#include "textbook.h"

namespace dwconv::test {

const char* name(Placement placement);

// NCHW images of (N, channels, height, width) as they lie in memory in the layout.
std::vector<double> in_layout(const std::vector<double>& images, Layout layout, const Shape& s, int64_t channels,
                              int64_t height, int64_t width);
// The same for what a operation writes or reads, whatever its form.
std::vector<double> result_in_layout(const std::vector<double>& result, Operation operation, Layout layout,
                                     const Shape& s);

// Which kernel buffers there are, and where they lie.
struct Form {
  Operation operation;
  DType dtype;
  Layout layout;
  Placement placement;
  bool with_bias;
  Activation activation = Activation::none;
};

// Read-only operands of a operation, stored in its dtype and layout.
class StoredOperands {
 public:
  StoredOperands(const Form& form, const Shape& shape, const Operands& operands);
  const Memory& memory() const { return memory_; }

 private:
  void add(const char* name, const std::vector<double>& values, const Form& form);

  std::vector<std::unique_ptr<Guarded>> owned_;
  Memory memory_;
};

// What a kernel writes, and what it is given of both.
class Writable {
 public:
  Writable(const Form& form, const Shape& shape, const Kernel& kernel, const StoredOperands& operands);

  Buffers buffers() const { return buffers_; }
  const Memory& memory() const { return memory_; }  // the operands too
  const Guarded& result() const { return *result_; }
  const Guarded* grad_bias() const { return grad_bias_.get(); }

  // "wrote to byte -4 of its result", or nothing.
  std::optional<std::string> damage() const;

 private:
  std::unique_ptr<Guarded> result_, grad_bias_, workspace_;
  Memory memory_;
  Buffers buffers_;
};

}  // namespace dwconv::test
