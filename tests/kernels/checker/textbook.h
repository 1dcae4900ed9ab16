// The right answers: the definition in csrc/shape.h, summed term by term in float64.
//
// Everything is NCHW and float64. It shares nothing with csrc/cpu/reference.cpp, which is a kernel under test like any
// other, and tests/kernels/test_nets.py compares it with F.conv2d.
#pragma once
#include <cstdint>
#include <vector>

#include "kernel.h"

namespace dwconv::test {

struct Operands {
  std::vector<double> input, weight, bias, grad_output;
};

// One number a result, and the sum of the absolute values of the terms that it is made of.
struct Sums {
  std::vector<double> value, magnitude;
};

int64_t input_size(const Shape& s);
int64_t weight_size(const Shape& s);
int64_t output_size(const Shape& s);
int64_t result_size(Operation operation, const Shape& s);

// `operation` without its bias.
Sums textbook(Operation operation, const Shape& s, const Operands& operands);

// By output channel: the sum of grad_output.
Sums textbook_grad_bias(const Shape& s, const std::vector<double>& grad_output);

// What forward adds to every result.
void add_bias(const Shape& s, const std::vector<double>& bias, Sums& output);

// The functions of torch.nn.functional in float64, written so that nothing cancels. NaN of NaN, and what torch makes of
// the infinities: NaN of the negative one, except for relu and relu6.
double textbook_activation(double value, Activation activation);

}  // namespace dwconv::test
