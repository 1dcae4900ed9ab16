// The right answers: the definitions in csrc/shape.h and csrc/kernel.h, summed term by term in float64.
//
// It shares nothing with csrc/cpu/reference.cpp, which is a kernel under test like any other, and
// tests/kernels/test_oracle.py compares it with F.conv2d.
#pragma once
#include <vector>

#include "../calls/operands.h"

namespace dwconv::test {

std::vector<double> textbook(Answer answer, const Shape& s, const Operands& operands);
std::vector<double> batch_norm(Answer answer, const Shape& s, const Operands& operands);  // those of BatchNorm
std::vector<double> sequence(Answer answer, const Shape& s, const Operands& operands);    // those of sequences

// The functions of torch.nn.functional in float64, written so that nothing cancels. NaN of NaN, and what torch makes of
// the infinities: NaN of the negative one, except for relu and relu6.
double textbook_activation(double value, Activation activation);

// With PyTorch's values where there is a kink.
double textbook_derivative(double value, Activation activation);

// What the numbers of a BatchNorm are rounded at, number by number: the sums of what its terms may be as large as.
std::vector<double> batch_norm_magnitudes(Answer answer, const Shape& s, const Operands& operands);

// The sums of the absolute values of a sequence's terms; of gradients with an activation, of what its derivative may be
// off by too.
std::vector<double> sequence_magnitudes(Answer answer, const Shape& s, const Operands& operands);

}  // namespace dwconv::test
