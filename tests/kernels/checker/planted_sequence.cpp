// Kernels of sequences, nchw, sound as they stand, and with one fault a kernel, as in planted.cpp. Items are channels.
#include <cmath>
#include <iterator>
#include <new>

#include "cpu/simd/activation.h"
#include "planted.h"

namespace dwconv::test {
namespace {

enum class Fault {
  none,
  ignores_reach,
  forgets_states,
  reads_far_behind_reach,
  takes_rows_for_dense,
  multiplies_border,
  sums_unwanted,
  ignores_activation,
  shifts_by_one,
  writes_padding,
  writes_between_positions,
};

void make_plan(const Shape& s, Plan& plan) {
  new (plan.state) Shape(s);
  plan.workspace_bytes = 0, plan.items[0] = s.C;
}
const char* any_shape(const Shape&) { return nullptr; }
const char* no_dilation(const Shape& s) { return s.dilation_w != 1 && s.KW != 1 ? "there is a dilation" : nullptr; }
const Shape& shape_of(const Plan& plan) { return *std::launder(reinterpret_cast<const Shape*>(plan.state)); }

float parameter(const void* p, int64_t index) { return p ? static_cast<const float*>(p)[index] : 0; }

// A channel of an image: the taps of its results.
template <Fault fault>
struct Row {
  const Shape& s;
  const Buffers& b;
  int64_t n, c;

  int64_t reach(int64_t l) const {
    const int32_t* reach = fault == Fault::ignores_reach ? nullptr : b.sequence->reach;
    return reach ? reach[n * s.W + l] : s.pad_left;
  }
  // Whether there is something at `at`, and what it is.
  bool source(int64_t at, float& x) const {
    const Sequence::Steps steps = b.sequence->input;
    const bool dense = fault == Fault::takes_rows_for_dense;
    const int64_t row = dense ? (n * s.C + c) * s.W : n * steps.image + c * steps.step;
    const auto* states = static_cast<const float*>(fault == Fault::forgets_states ? nullptr : b.sequence->states);
    if (at < 0 && !states) return false;
    x = at >= 0 ? static_cast<const float*>(b.input)[row + at] : states[(n * s.C + c + 1) * s.pad_left + at];
    return true;
  }
  template <class Each>
  void for_each_tap(int64_t l, Each each) const {
    for (int64_t k = 0; k < s.KW; ++k) {
      const int64_t back = (s.KW - 1 - k) * s.dilation_w;
      if (back <= reach(l)) each(k, l - back);
    }
  }
  float sum(int64_t l) const {
    float sum = parameter(b.bias, c);
    for_each_tap(l, [&](int64_t k, int64_t at) {
      float x = 0;
      const float weight = static_cast<const float*>(b.weight)[c * s.KW + k];
      if (source(at, x) || fault == Fault::multiplies_border) sum += weight * x;
    });
    return sum;
  }
};

template <Fault fault>
void sequence(const Plan& plan, const Buffers& b, int64_t begin, int64_t end) {
  const Shape& s = shape_of(plan);
  const int32_t* reach = b.sequence->reach;
  if (fault == Fault::reads_far_behind_reach && reach && begin < end) {
    (void)static_cast<const volatile int32_t*>(reach)[s.N * s.W + 16];
  }
  for (int64_t i = begin * s.N; i < end * s.N; ++i) {
    const Row<fault> row = {s, b, i % s.N, i / s.N};
    float* result = static_cast<float*>(b.result) + (row.n * s.C + row.c) * s.W;
    for (int64_t l = 0; l < s.W; ++l) {
      result[l] = row.reach(l) < 0 ? 0.0f : float(activated(row.sum(l), b.activation));
    }
  }
}

template <Fault fault>
void sequence_backward(const Plan& plan, const Buffers& b, int64_t begin, int64_t end) {
  const Shape& s = shape_of(plan);
  const Sequence& q = *b.sequence;
  const auto* weight = static_cast<const float*>(b.weight);
  for (int64_t c = begin; c < end; ++c) {
    double grad_bias = 0, grad_weight[Sequence::kMostTaps] = {};
    for (int64_t n = 0; n < s.N; ++n) {
      const Row<fault> row = {s, b, n, c};
      float* grad_input = static_cast<float*>(b.result) + (n * s.C + c) * s.W;
      float* grad_states = static_cast<float*>(q.grad_states);
      if (grad_states) grad_states += (n * s.C + c) * s.pad_left;
      for (int64_t l = 0; l < s.W; ++l) grad_input[l] = 0;
      for (int64_t l = 0; grad_states && l < s.pad_left; ++l) grad_states[l] = 0;
      for (int64_t l = 0; l < s.W; ++l) {
        const int64_t place = n * q.grad_output.image + c * q.grad_output.step + l;
        float g = static_cast<const float*>(b.grad_output)[place];
        if (b.activation == Activation::silu && fault != Fault::ignores_activation) {
          const double sum = double(row.sum(l)), gate = 1 / (1 + std::exp(-sum));
          g = float(double(g) * gate * (1 + sum * (1 - gate)));
        }
        if (row.reach(l) >= 0 || fault == Fault::sums_unwanted) grad_bias += double(g);
        row.for_each_tap(l, [&](int64_t k, int64_t at) {
          float x = 0;
          if (row.source(at, x)) grad_weight[k] += double(x) * double(g);
          if (at >= 0) grad_input[at] += weight[c * s.KW + k] * g;
          if (at < 0 && grad_states) grad_states[s.pad_left + at] += weight[c * s.KW + k] * g;
        });
      }
    }
    for (int64_t k = 0; k < s.KW; ++k) static_cast<float*>(b.grad_weight)[c * s.KW + k] = float(grad_weight[k]);
    if (b.grad_bias) static_cast<float*>(b.grad_bias)[c] = float(grad_bias);
  }
}

template <Fault fault>
void sequence_step(const Plan& plan, const Buffers& b, int64_t begin, int64_t end) {
  const Shape& s = shape_of(plan);
  const Sequence& q = *b.sequence;
  const Sequence::Cache& cache = q.cache;
  if (fault == Fault::writes_between_positions && begin < end && cache.position_step > 1 && cache.channel_step > 1) {
    static_cast<volatile float*>(cache.memory)[1] = 0;
  }
  for (int64_t i = begin * s.N; i < end * s.N; ++i) {
    const int64_t n = i % s.N, c = i / s.N, row = cache.rows ? cache.rows[n] : n, length = cache.length;
    auto* memory = static_cast<float*>(cache.memory) + row * cache.row_step + c * cache.channel_step;
    const float* x = static_cast<const float*>(b.input) + n * q.input.image + c * q.input.step;
    const int64_t next = cache.begins ? (cache.begins[n] % length + length) % length : length;
    const auto at = [&](int64_t p) {
      return p >= 0 ? x[p * q.input_position] : memory[(next + p + (next + p < 0 ? length : 0)) * cache.position_step];
    };
    if (row < 0 && fault == Fault::writes_padding && length > 0) *static_cast<volatile float*>(memory) = 0;
    for (int64_t l = 0; l < s.W; ++l) {
      float sum = parameter(b.bias, c);
      for (int64_t k = 0; row >= 0 && k < s.KW; ++k) {
        sum += static_cast<const float*>(b.weight)[c * s.KW + k] * at(l + k - s.KW + 1);
      }
      const double value = row < 0 ? 0 : activated(sum, b.activation);
      static_cast<float*>(b.result)[(n * s.C + c) * s.W + l] = float(value);
    }
    if (row < 0) continue;
    const int64_t by = fault == Fault::shifts_by_one ? 1 : s.W;
    for (int64_t l = 0; cache.begins && l < s.W; ++l) memory[(next + l) % length * cache.position_step] = at(l);
    for (int64_t p = 0; !cache.begins && p < length; ++p) {
      memory[p * cache.position_step] = at(p + by < length ? p + by - length : s.W - length + p);
    }
  }
}

#define DWCONV_PLANTED(operation, fault, supports)                                                                \
  {                                                                                                               \
    #operation "_" #fault, "planted", Operation::operation, DType::f32, Layout::nchw, Isa::baseline, 1, supports, \
        make_plan, {                                                                                              \
      operation<Fault::fault>                                                                                     \
    }                                                                                                             \
  }

const Kernel kernels[] = {
    DWCONV_PLANTED(sequence, none, any_shape),
    DWCONV_PLANTED(sequence, ignores_reach, any_shape),
    DWCONV_PLANTED(sequence, forgets_states, any_shape),
    DWCONV_PLANTED(sequence, reads_far_behind_reach, any_shape),
    DWCONV_PLANTED(sequence, takes_rows_for_dense, any_shape),
    DWCONV_PLANTED(sequence, multiplies_border, any_shape),
    DWCONV_PLANTED(sequence_backward, none, any_shape),
    DWCONV_PLANTED(sequence_backward, sums_unwanted, any_shape),
    DWCONV_PLANTED(sequence_backward, ignores_activation, any_shape),
    DWCONV_PLANTED(sequence_step, none, no_dilation),
    DWCONV_PLANTED(sequence_step, shifts_by_one, no_dilation),
    DWCONV_PLANTED(sequence_step, writes_padding, no_dilation),
    DWCONV_PLANTED(sequence_step, writes_between_positions, no_dilation),
};

}  // namespace

KernelList planted_sequence_kernels() { return {std::begin(kernels), std::end(kernels)}; }

}  // namespace dwconv::test
