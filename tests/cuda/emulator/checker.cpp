// Runs the CUDA kernels on the emulator under a sanitizer, without Python: the shapes on standard input, a line of 15
// numbers each (the fields of Shape), through every kernel that takes them, compared with the definition: on integers, and
// with NaN and infinities among them.
//
//   checker ORDER            ascending, descending, random
//   checker ORDER only PART  the kernels with PART in their names
//   checker ORDER planted NAME
//
// Buffers are exactly as long as their contents. All are aligned to 16 bytes in about half of the runs, and in the others
// one of them to its element alone. Ends with 1 at the first wrong result; a sanitizer ends it otherwise.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "../../../csrc/cuda/kernel.h"
#include "emulator.h"
#include "planted.h"
#include "textbook.h"

using namespace dwconv;

namespace {

// Memory whose first byte lies so far behind a multiple of 256 bytes.
class Bytes {
 public:
  explicit Bytes(size_t count, size_t moved = 0) : moved_(moved) {
    void* p = nullptr;
    if (posix_memalign(&p, 256, std::max<size_t>(moved + count, 1)) != 0) std::abort();
    std::memset(p, 0xff, moved + count);
    data_.reset(static_cast<char*>(p));
  }
  void* get() const { return data_.get() + moved_; }

 private:
  struct Free {
    void operator()(char* p) const { std::free(p); }
  };
  std::unique_ptr<char, Free> data_;
  size_t moved_;
};

size_t size_of(DType dtype) { return dtype == DType::f32 ? 4 : dtype == DType::f64 ? 8 : 2; }

void store(void* p, int64_t i, double v, DType dtype) {
  if (dtype == DType::f32) static_cast<float*>(p)[i] = float(v);
  if (dtype == DType::f64) static_cast<double*>(p)[i] = v;
  if (dtype == DType::bf16) static_cast<__nv_bfloat16*>(p)[i] = __float2bfloat16_rn(float(v));
  if (dtype == DType::f16) static_cast<__half*>(p)[i] = __float2half_rn(float(v));
}

double load(const void* p, int64_t i, DType dtype) {
  if (dtype == DType::f32) return static_cast<const float*>(p)[i];
  if (dtype == DType::f64) return static_cast<const double*>(p)[i];
  if (dtype == DType::bf16) return __bfloat162float(static_cast<const __nv_bfloat16*>(p)[i]);
  return __half2float(static_cast<const __half*>(p)[i]);
}

constexpr int kNewestDevice = 1000;

bool same(double a, double b) { return a == b || (std::isnan(a) && std::isnan(b)); }

// NCHW images, and where a pixel of them lies in a layout.
struct Images {
  Images(int64_t n, int64_t c, int64_t h, int64_t w) : c(c), h(h), w(w), values(size_t(n * c * h * w)) {}
  int64_t c, h, w;
  std::vector<double> values;
  double& at(int64_t n, int64_t ci, int64_t y, int64_t x) { return values[size_t(((n * c + ci) * h + y) * w + x)]; }
  // NaN and infinities, one for half of the planes, and one at least.
  void poison(std::mt19937_64& random) {
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    constexpr double kValues[] = {std::numeric_limits<double>::quiet_NaN(), kInfinity, -kInfinity};
    const size_t plane = size_t(h * w);
    for (size_t first = 0; plane > 0 && first < values.size(); first += plane) {
      if (first == 0 || random() % 2) values[first + random() % plane] = kValues[random() % 3];
    }
  }
  int64_t place(int64_t i, Layout layout) const {
    if (layout == Layout::nchw) return i;
    const int64_t x = i % w, y = i / w % h, ci = i / w / h % c, n = i / w / h / c;
    return ((n * h + y) * w + x) * c + ci;
  }
};

// The trilinear form of csrc/shape.h, term by term.
struct Problem {
  Problem(const Shape& s, bool special)
      : input(s.N, s.C, s.H, s.W),
        weight(1, s.out_channels(), s.KH, s.KW),
        bias(1, s.out_channels(), 1, 1),
        grad_output(s.N, s.out_channels(), s.OH, s.OW),
        forward(grad_output),
        grad_input(input),
        grad_weight(weight),
        grad_bias(bias) {
    std::mt19937_64 random(uint64_t(s.H * 131 + s.W * 31 + s.KH));
    for (Images* images : {&input, &weight, &bias, &grad_output}) {
      for (double& v : images->values) v = double(int64_t(random() % 7)) - 3;
      // Each operand by itself as often as with others, so that what one of them must not reach is seen.
      if (special && random() % 2) images->poison(random);
    }
    for (int64_t n = 0; n < s.N; ++n)
      for (int64_t oc = 0; oc < s.out_channels(); ++oc)
        for (int64_t oh = 0; oh < s.OH; ++oh)
          for (int64_t ow = 0; ow < s.OW; ++ow) add(s, n, oc, oh, ow);
  }

  void add(const Shape& s, int64_t n, int64_t oc, int64_t oh, int64_t ow) {
    const double g = grad_output.at(n, oc, oh, ow);
    double& output = forward.at(n, oc, oh, ow);
    output = bias.values[size_t(oc)];
    grad_bias.values[size_t(oc)] += g;
    for (int64_t kh = 0; kh < s.KH; ++kh)
      for (int64_t kw = 0; kw < s.KW; ++kw) {
        const int64_t ih = oh * s.stride_h + kh * s.dilation_h - s.pad_top;
        const int64_t iw = ow * s.stride_w + kw * s.dilation_w - s.pad_left;
        if (ih < 0 || ih >= s.H || iw < 0 || iw >= s.W) continue;
        const double x = input.at(n, oc / s.M, ih, iw), w = weight.at(0, oc, kh, kw);
        output += x * w;
        grad_input.at(n, oc / s.M, ih, iw) += w * g;
        grad_weight.at(0, oc, kh, kw) += x * g;
      }
  }

  Images input, weight, bias, grad_output, forward, grad_input, grad_weight, grad_bias;
};

struct Run {
  const cuda::Kernel& kernel;
  bool with_activations;
  // Which buffer, in the order in which they are made, begins so many elements behind a multiple of 256 bytes.
  int moved = -1, moved_elements = 0;
  mutable int made = 0;

  Bytes given(const Images& images, bool spatial) const {
    const Layout layout = spatial ? kernel.layout : Layout::nchw;
    Bytes p = empty(images);
    for (size_t i = 0; i < images.values.size(); ++i) {
      store(p.get(), images.place(int64_t(i), layout), images.values[i], kernel.dtype);
    }
    return p;
  }
  Bytes empty(const Images& images) const {
    const size_t element = size_of(kernel.dtype);
    return Bytes(images.values.size() * element, made++ == moved ? size_t(moved_elements) * element : 0);
  }
  bool equal(const Bytes& got, const Images& expected, bool spatial) const {
    const Layout layout = spatial ? kernel.layout : Layout::nchw;
    for (size_t i = 0; i < expected.values.size(); ++i) {
      double rounded = 0;
      store(&rounded, 0, expected.values[i], kernel.dtype);
      if (!same(load(got.get(), expected.place(int64_t(i), layout), kernel.dtype), load(&rounded, 0, kernel.dtype))) {
        return false;
      }
    }
    return true;
  }

  // Results after an activation, from those before it: 16 bits are rounded, and device functions are short of their last bits.
  bool close(const Bytes& got, const Images& before, Activation activation) const {
    const double relative = size_of(kernel.dtype) == 2 ? 1e-2 : 1e-5;
    for (size_t i = 0; i < before.values.size(); ++i) {
      const double expected = test::textbook_activation(before.values[i], activation);
      const double off = load(got.get(), before.place(int64_t(i), kernel.layout), kernel.dtype) - expected;
      if (!(std::abs(off) <= relative * std::abs(expected) + 1e-6)) return false;
    }
    return true;
  }

  // nullptr, or what is wrong.
  const char* operator()(const Shape& s, Problem& problem) const {
    const bool is_gradient = kernel.operation == Operation::grad_weight,
               is_both = kernel.operation == Operation::backward;
    Images& expected = kernel.operation == Operation::forward ? problem.forward
                       : is_gradient                          ? problem.grad_weight
                                                              : problem.grad_input;
    const Bytes input = given(problem.input, true), weight = given(problem.weight, false);
    const Bytes bias = given(problem.bias, false), grad_output = given(problem.grad_output, true);
    const Bytes result = empty(expected), grad_bias = empty(problem.grad_bias);
    const Bytes grad_weight = empty(problem.grad_weight);
    const size_t workspace_bytes = kernel.workspace_bytes ? size_t(kernel.workspace_bytes(s)) : 0;
    const Bytes workspace(workspace_bytes);
    Buffers b;
    if (kernel.operation != Operation::grad_input) b.input = input.get();
    if (kernel.operation != Operation::grad_weight) b.weight = weight.get();
    if (kernel.operation == Operation::forward) b.bias = bias.get();
    if (kernel.operation != Operation::forward) b.grad_output = grad_output.get();
    if (is_both) b.grad_weight = grad_weight.get();
    if (is_gradient || is_both) b.grad_bias = grad_bias.get();
    b.result = result.get();
    b.workspace = workspace_bytes ? workspace.get() : nullptr;
    if (const char* error = kernel.launch(s, b, nullptr)) return error;
    if (!equal(result, expected, !is_gradient)) return "wrong result";
    if (kernel.operation == Operation::forward && with_activations) {
      for (int i = int(Activation::relu); i <= int(Activation::gelu_tanh); ++i) {
        b.activation = Activation(i);
        const cuda::Request request = {kernel.operation, kernel.dtype, kernel.layout, s, b.activation, kNewestDevice};
        if (cuda::refusal(kernel, request)) continue;
        if (const char* error = kernel.launch(s, b, nullptr)) return error;
        if (!close(result, expected, b.activation)) return "wrong activation";
      }
    }
    if (is_both && !equal(grad_weight, problem.grad_weight, false)) return "wrong grad_weight";
    if ((is_gradient || is_both) && !equal(grad_bias, problem.grad_bias, false)) return "wrong grad_bias";
    return nullptr;
  }
};

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> orders = {"ascending", "descending", "random"};
  const auto order = argc > 1 ? std::find(orders.begin(), orders.end(), argv[1]) : orders.end();
  if (order == orders.end()) return std::fprintf(stderr, "usage: checker ascending|descending|random\n"), 2;
  emulator::set_order(emulator::Order(order - orders.begin()), 1);
  if (argc == 4 && std::strcmp(argv[2], "planted") == 0) {
    const char* error = test::run_planted(argv[3]);
    if (error) std::printf("%s: %s\n", argv[3], error);
    return error != nullptr;
  }
  const char* part = argc == 4 && std::strcmp(argv[2], "only") == 0 ? argv[3] : "";
  Shape s;
  int64_t* fields = &s.N;
  // Shapes of each kernel of forward: they are six launches more. Not small ones, whose results may all be alike.
  constexpr int kWithActivations = 4;
  constexpr size_t kResultsToActivate = 32;
  constexpr int kBuffers = 7;  // of operands and results
  int ran = 0;
  std::map<const cuda::Kernel*, int> activated;
  std::mt19937_64 random;
  static_assert(sizeof(Shape) == 15 * sizeof(int64_t));
  while (std::scanf("%ld", &fields[0]) == 1) {
    for (int i = 1; i < 15; ++i) {
      if (std::scanf("%ld", &fields[i]) != 1) return std::fprintf(stderr, "a shape has 15 numbers\n"), 2;
    }
    Problem integers(s, false), special(s, true);
    for (const cuda::Kernel& kernel : cuda::kernels()) {
      if (kernel.supports(s) || !std::strstr(kernel.name, part)) continue;
      const bool with_activations =
          integers.forward.values.size() >= kResultsToActivate && ++activated[&kernel] <= kWithActivations;
      for (Problem* problem : {&integers, &special}) {
        Run run{kernel, with_activations && problem == &integers};
        if (random() % 2) {
          run.moved = int(random() % kBuffers);
          run.moved_elements = 1 + int(random() % (16 / size_of(kernel.dtype) - 1));
        }
        ++ran;
        if (const char* error = run(s, *problem)) {
          std::printf("%s: %s, %s, buffer %d moved by %d, on", kernel.name, error,
                      problem == &special ? "with NaN and infinities" : "on integers", run.moved, run.moved_elements);
          for (int i = 0; i < 15; ++i) std::printf(" %ld", fields[i]);
          return std::printf("\n"), 1;
        }
      }
    }
  }
  std::printf("%d launches right\n", ran);
  return ran == 0;
}
