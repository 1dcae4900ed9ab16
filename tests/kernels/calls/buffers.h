// The buffers of one call, between guards: operands stored from float64, results and workspace poisoned.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "call.h"
#include "number.h"
#include "operands.h"

namespace dwconv::test {

const char* name(Placement placement);

// Which kernels are meant, which buffers they get, and where those lie.
struct Form {
  Operation operation;
  DType dtype;
  Layout layout;
  Placement placement;
  Given given;
  Activation activation = Activation::none;
  bool in_place = false;  // of channel_scale: the result lies where the input is
};

// Read-only operands of an operation, stored in its dtype and layout.
class StoredOperands {
 public:
  StoredOperands(const Form& form, const Shape& shape, const Operands& operands);
  const Memory& memory() const { return memory_; }
  double epsilon() const { return epsilon_; }

 private:
  std::vector<std::unique_ptr<Guarded>> owned_;
  Memory memory_;
  double epsilon_;
};

// What a kernel writes, and what it is given of both.
class Writable {
 public:
  Writable(const Form& form, const Shape& shape, const Call& call, const StoredOperands& operands);

  Buffers buffers() const { return buffers_; }
  const Memory& memory() const { return memory_; }                 // the operands too
  const std::vector<Output>& written() const { return written_; }  // the outputs, without the workspace
  const Guarded& output(const Output& output) const { return *memory_.at(output.name); }
  std::vector<double> values(const Output& output) const;  // NCHW

  // "wrote to byte -4 of its result", or nothing.
  std::optional<std::string> damage() const;

 private:
  const Form form_;
  const Shape shape_;
  const std::vector<Output> written_;
  std::map<std::string, std::unique_ptr<Guarded>> owned_;
  Memory memory_;
  Buffers buffers_;
};

}  // namespace dwconv::test
