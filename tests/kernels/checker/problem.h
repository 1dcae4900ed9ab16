// Data for one shape and the right answers for it.
#pragma once
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "../calls/operands.h"

namespace dwconv::test {

//   integers    -4 to 4, zeros of both signs: no sum rounds, so results must be right to the last bit
//   larger      integers of which sums are exact in float32, but need to be rounded in 16 bits, ties among them
//   special     integers with a NaN or an infinity here and there, often at a border, in some of the operands
//   special_*   the same in most planes of one operand, or in some pixels where channels meet, so that what it must not
//               reach is seen
//   normal      all 24 bits of float32
//   eight_bits  exact in bfloat16 and in float16
//   positive    0 to 1, exact in float32: long sums grow large, so that plain float32 summation loses digits
//   offset      999 to 1001: numbers that differ little for their size
enum class Data {
  integers,
  larger,
  special,
  special_input,
  special_weight,
  special_grad_output,
  normal,
  eight_bits,
  positive,
  offset
};
constexpr Data kData[] = {Data::integers,      Data::larger,         Data::special,
                          Data::special_input, Data::special_weight, Data::special_grad_output,
                          Data::normal,        Data::eight_bits,     Data::positive,
                          Data::offset};
const char* name(Data data);

Operands draw(const Shape& s, Kind kind, Data data, uint64_t seed);

// Where right answers come from: the textbook, or F.conv2d where Python asks.
using Oracle = std::function<std::vector<double>(Answer, const Shape&, const Operands&)>;

class Problem {
 public:
  Problem(const Shape& s, Kind kind, Data data, uint64_t seed, const Oracle& oracle)
      : shape_(s), oracle_(oracle), operands_(draw(s, kind, data, seed)) {}

  const Shape& shape() const { return shape_; }
  const Operands& operands() const { return operands_; }
  const std::vector<double>& values(Answer answer);
  // The sums of the absolute values of the terms; of layer_norm what its own operations are rounded at.
  const std::vector<double>& magnitudes(Answer answer);
  // The largest number of terms in one sum.
  int64_t terms(Answer answer) const;

 private:
  Shape shape_;
  Oracle oracle_;
  Operands operands_, absolute_;
  std::map<Answer, std::vector<double>> values_, magnitudes_;
};

}  // namespace dwconv::test
