// Data for one shape and the right answers for it.
#pragma once
#include <map>
#include <optional>
#include <vector>

#include "kernel.h"
#include "random.h"
#include "textbook.h"

namespace dwconv::test {

//   integers    -4 to 4, zeros of both signs: no sum rounds, so results must be right to the last bit
//   larger      integers of which sums are exact in float32, but need to be rounded in 16 bits, ties among them
//   special     integers with a NaN or an infinity here and there, often at a border
//   normal      all 24 bits of float32
//   eight_bits  exact in bfloat16 and in float16
enum class Data { integers, larger, special, normal, eight_bits };

// What the results of a operation should be, NCHW. `terms` is the largest number of them in one sum.
struct Expected {
  Sums result;
  std::optional<Sums> grad_bias;
  int64_t terms;
};

class Problem {
 public:
  Problem(const Shape& shape, Data data, uint64_t seed);

  const Shape& shape() const { return shape_; }
  const Operands& operands() const { return operands_; }
  const Expected& expected(Operation operation, bool with_bias);

 private:
  Shape shape_;
  Operands operands_;
  std::map<Operation, Sums> plain_;  // without bias
  std::map<std::pair<Operation, bool>, Expected> expected_;
};

}  // namespace dwconv::test
