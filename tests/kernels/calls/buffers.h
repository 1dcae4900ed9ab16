// The buffers of one call, between guards: operands stored from float64, results and workspace poisoned.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "call.h"
#include "number.h"
#include "sequence.h"

namespace dwconv::test {

const char* name(Placement placement);

// Read-only operands of an operation, stored in its dtype and layout.
class StoredOperands {
 public:
  StoredOperands(const Form& form, const Shape& shape, const Operands& operands);
  const Memory& memory() const { return memory_; }
  double epsilon() const { return epsilon_; }
  const std::vector<double>& cache() const { return cache_; }

 private:
  std::vector<std::unique_ptr<Guarded>> owned_;
  std::vector<double> cache_;
  Memory memory_;
  double epsilon_;
};

// What a kernel writes, and what it is given of both.
class Writable {
 public:
  Writable(const Form& form, const Shape& shape, const Call& call, const StoredOperands& operands);
  Writable(const Writable&) = delete;  // its Buffers point to it
  Writable& operator=(const Writable&) = delete;

  Buffers buffers() const { return buffers_; }
  const Memory& memory() const { return memory_; }                 // the operands too
  const std::vector<Output>& written() const { return written_; }  // the outputs, without the workspace
  const Guarded& output(const Output& output) const { return *memory_.at(output.name); }
  std::vector<double> values(const Output& output) const;  // NCHW

  // "wrote to byte -4 of its result", or nothing.
  std::optional<std::string> damage() const;

 private:
  // Numbers of a cache, and a canary between them.
  void fill_cache(const std::vector<double>& values);
  std::optional<size_t> damage_between_numbers() const;

  const Form form_;
  const Shape shape_;
  const std::vector<Output> written_;
  std::map<std::string, std::unique_ptr<Guarded>> owned_;
  Memory memory_;
  Buffers buffers_;
  Sequence sequence_;
};

}  // namespace dwconv::test
