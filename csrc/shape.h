// The problem a kernel is given: sizes and geometry, nothing about tensors or devices.
//
//   input       (N, C,   H,  W )
//   weight      (C*M, 1, KH, KW)      output channel c*M + m reads input channel c
//   grad_output (N, C*M, OH, OW)      also the shape of the output
//
// All three operations are slot-gradients of one trilinear form, so one Shape describes all of them:
//
//   T(x, w, g) = sum over n,c,m,oh,ow,kh,kw of
//       x[n, c, oh*stride_h + kh*dilation_h - pad_top, ow*stride_w + kw*dilation_w - pad_left]
//     * w[c*M + m, kh, kw] * g[n, c*M + m, oh, ow]
//
// where taps outside the input are skipped. Padding at the bottom and right has no field: it is whatever OH and OW
// reach beyond the input. Every size is 64-bit and counts elements.
//
// For a dense convolution M is the number of output channels: it has one group where a depthwise one has C.
#pragma once
#include <cstdint>

namespace dwconv {

struct Shape {
  int64_t N, C, M, H, W;
  int64_t KH, KW;
  int64_t OH, OW;
  int64_t stride_h, stride_w;
  int64_t dilation_h, dilation_w;
  int64_t pad_top, pad_left;

  int64_t out_channels() const { return C * M; }
  int64_t taps() const { return KH * KW; }
  // Multiply-adds of the whole problem, out-of-bounds taps included: the measure of work for threading decisions.
  double work() const { return double(N) * double(C) * double(M) * double(OH) * double(OW) * double(taps()); }
};

}  // namespace dwconv
