// The activations on sums of forward, before they are rounded and stored. NaN stays NaN in all of them.
//
// A kernel has its results in registers and each gets its own copy of this, since a call would spill the rest of them.
// With dozens of results that is bearable for the short ones only: `short_only` leaves the others out, and the kernel
// refuses those (Kernel::short_activations_only). With none, a uniform branch is what it costs.
#pragma once
#include "device.cuh"

namespace dwconv::cuda {

// x / (1 + exp(-t))
__device__ __forceinline__ float times_sigmoid(float x, float t) { return __fdividef(x, 1.0f + __expf(-t)); }
__device__ __forceinline__ double times_sigmoid(double x, double t) { return x / (1.0 + exp(-t)); }

template <bool short_only, class A>
__device__ __forceinline__ A activated(A x, Activation activation) {
  if (activation == Activation::relu || activation == Activation::relu6) {
    x = x < A(0) ? A(0) : x;
    return activation == Activation::relu6 && x > A(6) ? A(6) : x;
  }
  if (short_only || activation == Activation::hardswish) {
    return x * (x < A(-3) ? A(0) : x > A(3) ? A(6) : x + A(3)) * A(1.0 / 6.0);
  }
  constexpr A kSqrtHalf = A(0.70710678118654752440), kTwoSqrtTwoOverPi = A(1.5957691216057307);
  switch (activation) {
    case Activation::silu: return times_sigmoid(x, x);
    // 1 + tanh(u) = 2 / (1 + exp(-2u))
    case Activation::gelu_tanh: return times_sigmoid(x, kTwoSqrtTwoOverPi * (x + A(0.044715) * x * x * x));
    case Activation::gelu: return x * A(0.5) * (A(1) + erf(x * kSqrtHalf));
    default: return x;
  }
}

template <bool short_only = false, class A, int N>
__device__ __forceinline__ void activate(A (&values)[N], Activation activation) {
  if (activation == Activation::none) return;
#pragma unroll
  for (int i = 0; i < N; ++i) values[i] = activated<short_only>(values[i], activation);
}

}  // namespace dwconv::cuda
