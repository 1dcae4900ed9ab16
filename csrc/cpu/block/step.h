// A block: a chain of steps, and what each makes of an image. docs/architecture.md, "Blocks", has the whole.
#pragma once
#include <cstdint>

#include "../../kernel.h"

namespace dwconv {

//   dense           a convolution with groups=1; constants: packed weight, bias (accumulator's type)
//   depthwise       constants: weight, bias
//   layer_norm      over the channels of a pixel, without weight and bias
//   squeeze_excite  x * gate(dense(activation(dense(mean of x)))); constants: packed weight, bias, twice
//   mean            over height and width
enum class StepKind : int64_t { dense, depthwise, layer_norm, squeeze_excite, mean };

struct Step {
  StepKind kind;
  Activation activation;
  int64_t channels;  // that come out; of squeeze_excite the hidden ones
  int64_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w;
  int64_t pad_top, pad_left, pad_bottom, pad_right;
  Activation gate;

  // How many tensors it takes of the block's constants.
  int64_t constants() const { return convolves() ? 2 : kind == StepKind::squeeze_excite ? 4 : 0; }

  bool convolves() const { return kind == StepKind::dense || kind == StepKind::depthwise; }
  bool pads() const { return pad_top > 0 || pad_left > 0 || pad_bottom > 0 || pad_right > 0; }
  // Whether a row of results comes from the same row alone, and may be computed without knowing which one it is.
  bool within_rows() const {
    return kind == StepKind::layer_norm ||
           (kind == StepKind::dense && kernel_h == 1 && kernel_w == 1 && stride_h == 1 && stride_w == 1 && !pads());
  }
};

// Sizes of one image between two steps.
struct Image {
  int64_t channels, height, width;
  int64_t row() const { return channels * width; }
  int64_t size() const { return channels * height * width; }
};

inline Image after(const Step& step, const Image& image) {
  const auto out = [](int64_t size, int64_t before, int64_t behind, int64_t kernel, int64_t stride, int64_t dilation) {
    const int64_t left = size + before + behind - (kernel - 1) * dilation - 1;
    return left < 0 ? 0 : left / stride + 1;
  };
  if (step.kind == StepKind::mean) return {image.channels, 1, 1};
  if (!step.convolves()) return image;
  return {step.channels,
          out(image.height, step.pad_top, step.pad_bottom, step.kernel_h, step.stride_h, step.dilation_h),
          out(image.width, step.pad_left, step.pad_right, step.kernel_w, step.stride_w, step.dilation_w)};
}

// Weights that are read next.
struct Coming {
  const void* data = nullptr;
  int64_t bytes = 0;
};

inline int64_t element_bytes(DType dtype) { return dtype == DType::f64 ? 8 : dtype == DType::f32 ? 4 : 2; }
inline int64_t sum_bytes(DType dtype) { return dtype == DType::f64 ? 8 : 4; }

// Of a packed weight (kernel.h), but for the zeros that end odd segments of bf16.
inline int64_t dense_weight_bytes(DType dtype, const Shape& shape) {
  return (shape.M + 15) / 16 * 16 * shape.C * shape.taps() * element_bytes(dtype);
}

}  // namespace dwconv
