// oneDNN called by its own API: one depthwise convolution primitive, its tensors in the layout asked for, for ctypes.
//
// Built by onednn.py. Every function returns null, or the text of the exception.
#include <dnnl.hpp>

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <unordered_map>

using namespace dnnl;
using Tag = memory::format_tag;

namespace {

struct Convolution {
  engine cpu{engine::kind::cpu, 0};
  stream queue{cpu};
  primitive run;
  std::unordered_map<int, memory> arguments;
  int result = 0;             // the argument that run writes
  memory::desc plain_result;  // the layout that the caller reads it in
  std::string implementation;
};

thread_local std::string error_text;

template <typename Function>
const char* guarded(Function function) {
  try {
    function();
    return nullptr;
  } catch (const std::exception& error) {
    error_text = error.what();
    return error_text.c_str();
  }
}

// Puts an operand, given densely in `plain`, into the layout that the primitive chose.
void set_operand(Convolution& c, int argument, const memory::desc& chosen, const memory::desc& plain, void* data) {
  memory given(plain, c.cpu, data);
  memory kept(chosen, c.cpu);
  reorder(given, kept).execute(c.queue, given, kept);
  c.arguments[argument] = kept;
}

void set_result(Convolution& c, int argument, const memory::desc& chosen, const memory::desc& plain) {
  memory kept(chosen, c.cpu);
  std::memset(kept.get_data_handle(), 1, chosen.get_size());
  c.arguments[argument] = kept;
  c.result = argument;
  c.plain_result = plain;
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

// operation: 0 forward, 1 grad_input, 2 grad_weight. dtype: oneDNN's number. layout: 0 nchw, 1 nhwc, 2 oneDNN's choice.
// shape: N C M H W KH KW OH OW stride_h stride_w dilation_h dilation_w pad_top pad_left. Operands are dense NCHW, the
// weight (C, M, 1, KH, KW).
EXPORT const char* create(Convolution** created, int operation, int dtype, int layout, const int64_t* s, void* input,
                          void* weight, void* grad_output) {
  return guarded([&] {
    auto c = std::make_unique<Convolution>();
    const auto type = static_cast<memory::data_type>(dtype);
    const Tag tag = layout == 0 ? Tag::nchw : layout == 1 ? Tag::nhwc : Tag::any;
    const memory::dims x = {s[0], s[1], s[3], s[4]}, w = {s[1], s[2], 1, s[5], s[6]},
                       y = {s[0], s[1] * s[2], s[7], s[8]};
    const memory::dims stride = {s[9], s[10]}, dilation = {s[11] - 1, s[12] - 1}, begin = {s[13], s[14]};
    // What the output size reaches beyond the input at the bottom and right.
    const memory::dims end = {(s[7] - 1) * s[9] + (s[5] - 1) * s[11] + 1 - s[3] - s[13],
                              (s[8] - 1) * s[10] + (s[6] - 1) * s[12] + 1 - s[4] - s[14]};
    const memory::desc any_x(x, type, tag), any_w(w, type, Tag::any), any_y(y, type, tag);
    const memory::desc plain_x(x, type, Tag::nchw), plain_w(w, type, Tag::goihw), plain_y(y, type, Tag::nchw);
    const auto direct = algorithm::convolution_direct;
    const convolution_forward::primitive_desc forward(
        c->cpu, operation == 0 ? prop_kind::forward_inference : prop_kind::forward_training, direct, any_x, any_w,
        any_y, stride, dilation, begin, end);
    if (operation == 0) {
      set_operand(*c, DNNL_ARG_SRC, forward.src_desc(), plain_x, input);
      set_operand(*c, DNNL_ARG_WEIGHTS, forward.weights_desc(), plain_w, weight);
      set_result(*c, DNNL_ARG_DST, forward.dst_desc(), plain_y);
      c->run = convolution_forward(forward);
      c->implementation = forward.impl_info_str();
    } else if (operation == 1) {
      const convolution_backward_data::primitive_desc backward(c->cpu, direct, any_x, any_w, any_y, stride, dilation,
                                                               begin, end, forward);
      set_operand(*c, DNNL_ARG_DIFF_DST, backward.diff_dst_desc(), plain_y, grad_output);
      set_operand(*c, DNNL_ARG_WEIGHTS, backward.weights_desc(), plain_w, weight);
      set_result(*c, DNNL_ARG_DIFF_SRC, backward.diff_src_desc(), plain_x);
      c->run = convolution_backward_data(backward);
      c->implementation = backward.impl_info_str();
    } else {
      const convolution_backward_weights::primitive_desc backward(c->cpu, direct, any_x, any_w, any_y, stride, dilation,
                                                                  begin, end, forward);
      set_operand(*c, DNNL_ARG_SRC, backward.src_desc(), plain_x, input);
      set_operand(*c, DNNL_ARG_DIFF_DST, backward.diff_dst_desc(), plain_y, grad_output);
      set_result(*c, DNNL_ARG_DIFF_WEIGHTS, backward.diff_weights_desc(), plain_w);
      c->run = convolution_backward_weights(backward);
      c->implementation = backward.impl_info_str();
    }
    c->queue.wait();
    *created = c.release();
  });
}

EXPORT const char* execute(Convolution* c) {
  return guarded([&] {
    c->run.execute(c->queue, c->arguments);
    c->queue.wait();
  });
}

// Copies the result to `data`, densely as the operands were given.
EXPORT const char* read_result(Convolution* c, void* data) {
  return guarded([&] {
    memory result = c->arguments[c->result], plain(c->plain_result, c->cpu, data);
    reorder(result, plain).execute(c->queue, result, plain);
    c->queue.wait();
  });
}

EXPORT const char* implementation(const Convolution* c) { return c->implementation.c_str(); }

EXPORT void destroy(Convolution* c) { delete c; }

EXPORT const char* library_version() {
  static const std::string text = std::to_string(version()->major) + "." + std::to_string(version()->minor) + "." +
                                  std::to_string(version()->patch);
  return text.c_str();
}

// The C++ API's numbers of f32, f64, bf16 and f16.
EXPORT int data_type(int index) {
  constexpr memory::data_type types[] = {memory::data_type::f32, memory::data_type::f64, memory::data_type::bf16,
                                         memory::data_type::f16};
  return static_cast<int>(types[index]);
}
