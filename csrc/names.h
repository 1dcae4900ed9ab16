// What users read for the enumerations of kernel.h.
#pragma once
#include "kernel.h"

namespace dwconv {

inline const char* name(Operation operation) {
  static constexpr const char* names[] = {"forward",
                                          "grad_input",
                                          "grad_weight",
                                          "backward",
                                          "dense",
                                          "layer_norm",
                                          "channel_scale",
                                          "channel_sum",
                                          "batch_norm",
                                          "batch_norm_backward",
                                          "batch_norm_eval",
                                          "batch_norm_eval_backward",
                                          "pointwise",
                                          "pointwise_grad_input",
                                          "pointwise_grad_weight",
                                          "sequence",
                                          "sequence_backward",
                                          "sequence_step"};
  static_assert(sizeof names / sizeof names[0] == kOperations);
  return names[int(operation)];
}
inline const char* name(DType dtype) {
  static constexpr const char* names[] = {"f32", "f64", "bf16", "f16"};
  return names[int(dtype)];
}
inline const char* name(Layout layout) {
  static constexpr const char* names[] = {"nchw", "nhwc"};
  return names[int(layout)];
}
inline const char* name(Isa isa) {
  static constexpr const char* names[] = {"baseline", "avx2", "avx512", "neon"};
  return names[int(isa)];
}

}  // namespace dwconv
