// What the parameters of kernels have in common: each of these sets those members that a struct has, whatever their types.
#pragma once
#include "kernel.h"

namespace dwconv::cuda {

// What forward and grad_input read and write; bias is null where there is none.
template <class T>
struct Operands {
  const T* source;  // the input of forward, the gradient of the output for grad_input
  const T* weight;
  const T* bias;
  T* result;
};

// The operands and the result of forward or, `transposed`, of grad_input.
template <class T, class Parameters>
void set_operands(Parameters& p, bool transposed, const Buffers& b) {
  p.source = static_cast<const T*>(transposed ? b.grad_output : b.input);
  p.weight = static_cast<const T*>(b.weight);
  p.result = static_cast<T*>(b.result);
  if constexpr (requires { p.bias; }) p.bias = static_cast<const T*>(b.bias);
  if constexpr (requires { p.activation; }) p.activation = b.activation;
}

// The same, and the sizes of planes, which count with 32 bits, at multiplier 1. grad_input at stride 1 is forward with the
// kernel rotated and the padding mirrored.
template <class T, class Parameters>
void set_planes(Parameters& p, bool transposed, const Shape& s, const Buffers& b) {
  set_operands<T>(p, transposed, b);
  p.channels = decltype(p.channels)(s.C);
  p.source_rows = int(transposed ? s.OH : s.H), p.source_columns = int(transposed ? s.OW : s.W);
  p.rows = int(transposed ? s.H : s.OH), p.columns = int(transposed ? s.W : s.OW);
  if constexpr (requires { p.pad_top; }) p.pad_top = int(transposed ? s.KH - 1 - s.pad_top : s.pad_top);
  if constexpr (requires { p.pad_left; }) p.pad_left = int(transposed ? s.KW - 1 - s.pad_left : s.pad_left);
  if constexpr (requires { p.rotated; }) p.rotated = transposed && s.stride_h == 1;
  if constexpr (requires { p.element_bytes; }) p.element_bytes = int(sizeof(T));
  if constexpr (requires { p.source_plane; }) p.source_plane = unsigned(p.source_rows * p.source_columns);
  if constexpr (requires { p.result_plane; }) p.result_plane = unsigned(p.rows * p.columns);
}

}  // namespace dwconv::cuda
