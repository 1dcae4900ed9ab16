// What the kernels that compute contiguous planes from shared memory have in common: the problem, and what becomes of NaN.
//
// They put zeros where there is padding (and the Toeplitz kernel zeros round its weights) and multiply those like any
// number, which the definition does not: zero times Inf or NaN is NaN. But a sum that such a product has entered is always
// NaN. So a NaN among the results is all that they look for, and such a result is computed again, tap by tap.
#pragma once
#include "device/activate.cuh"
#include "parameters.h"

namespace dwconv::cuda {

template <class T>
struct PlaneParameters {
  // Not a base: then kernels' own parameters would begin within the padding behind `activation`, and nvcc makes other code.
  const T* source;
  const T* weight;
  const T* bias;
  T* result;
  int64_t images, channels;
  int source_rows, source_columns, rows, columns, pad_top, pad_left, kernel_rows, kernel_columns, stride;
  bool rotated;
  Activation activation;
};

// forward, or grad_input at stride 1: forward with the kernel rotated and the padding mirrored.
template <class T>
PlaneParameters<T> plane_parameters(bool transposed, const Shape& s, const Buffers& b) {
  PlaneParameters<T> p;
  set_planes<T>(p, transposed, s, b);
  p.images = s.N;
  p.kernel_rows = int(s.KH), p.kernel_columns = int(s.KW), p.stride = int(s.stride_h);
  return p;
}

__device__ __forceinline__ bool is_nan(float v) { return v != v; }

// One result by the definition, before activation.
template <class T>
__device__ __forceinline__ float by_definition(const PlaneParameters<T>& p, int64_t plane, int64_t channel, int row,
                                               int column) {
  const T* source = p.source + plane * p.source_rows * p.source_columns;
  const int taps = p.kernel_rows * p.kernel_columns;
  const T* weight = p.weight + channel * taps + (p.rotated ? taps - 1 : 0);
  const int step = p.rotated ? -1 : 1;
  float sum = p.bias ? widen(__ldg(p.bias + channel)) : 0.0f;
#pragma unroll 1
  for (int kh = 0; kh < p.kernel_rows; ++kh) {
    const int h = row * p.stride - p.pad_top + kh;
#pragma unroll 1
    for (int kw = 0; kw < p.kernel_columns; ++kw, weight += step) {
      const int w = column * p.stride - p.pad_left + kw;
      if (unsigned(h) < unsigned(p.source_rows) && unsigned(w) < unsigned(p.source_columns)) {
        sum = multiply_add(widen(__ldg(source + h * p.source_columns + w)), widen(__ldg(weight)), sum);
      }
    }
  }
  return sum;
}

}  // namespace dwconv::cuda
