// The textbook algorithm, for every shape, layout and dtype: split the input by channel, multiply each channel with its
// own filter, merge the results. Padding is the border of k//2 (or any other width) that the bounds test below leaves
// out, and each operation loops over the size of its own result.
//
// It is the last kernel of every list: it never refuses, so there is always an answer, and it is short enough to be
// checked by reading. Sums are kept in f64.
// Bound: none worth the name, one scalar multiply-add at a time.
#include <cmath>
#include <iterator>
#include <new>

#include "../kernel.h"
#include "registry.h"
#include "simd/activation.h"
#include "simd/float16.h"

namespace dwconv {
namespace {

double load(double value) { return value; }
template <class T>
double load(T value) {
  return to_float(value);
}

void store(double sum, double* out) { *out = sum; }
void store(double sum, float* out) { *out = float(sum); }
void store(double sum, bf16* out) { *out = to_bf16(float(sum)); }
void store(double sum, f16* out) { *out = to_f16(float(sum)); }

// One channel of one image.
template <class T>
struct Plane {
  T* first;
  int64_t height, width, stride_h, stride_w;

  bool inside(int64_t h, int64_t w) const { return 0 <= h && h < height && 0 <= w && w < width; }
  T& at(int64_t h, int64_t w) const { return first[h * stride_h + w * stride_w]; }
};

template <Layout layout, class T>
Plane<T> split(T* images, int64_t n, int64_t c, int64_t channels, int64_t height, int64_t width) {
  T* image = images + n * channels * height * width;
  if (layout == Layout::nchw) return {image + c * height * width, height, width, width, 1};
  return {image + c, height, width, width * channels, channels};
}

template <Layout layout, class T>
Plane<const T> input_plane(const Shape& s, const Buffers& b, int64_t n, int64_t c) {
  return split<layout>(static_cast<const T*>(b.input), n, c, s.C, s.H, s.W);
}

template <Layout layout, class T>
Plane<const T> grad_output_plane(const Shape& s, const Buffers& b, int64_t n, int64_t oc) {
  return split<layout>(static_cast<const T*>(b.grad_output), n, oc, s.out_channels(), s.OH, s.OW);
}

int64_t output_planes(const Shape& s) { return s.N * s.out_channels(); }

template <class T, Layout layout>
void forward(const Shape& s, const Buffers& b, int64_t begin, int64_t end) {
  for (int64_t item = begin; item < end; ++item) {
    const int64_t n = item / s.out_channels(), oc = item % s.out_channels();
    const auto input = input_plane<layout, T>(s, b, n, oc / s.M);
    const auto output = split<layout>(static_cast<T*>(b.result), n, oc, s.out_channels(), s.OH, s.OW);
    const T* filter = static_cast<const T*>(b.weight) + oc * s.taps();
    for (int64_t oh = 0; oh < s.OH; ++oh) {
      for (int64_t ow = 0; ow < s.OW; ++ow) {
        double sum = b.bias ? load(static_cast<const T*>(b.bias)[oc]) : 0;
        for (int64_t kh = 0; kh < s.KH; ++kh) {
          for (int64_t kw = 0; kw < s.KW; ++kw) {
            const int64_t h = oh * s.stride_h + kh * s.dilation_h - s.pad_top;
            const int64_t w = ow * s.stride_w + kw * s.dilation_w - s.pad_left;
            if (input.inside(h, w)) sum += load(input.at(h, w)) * load(filter[kh * s.KW + kw]);
          }
        }
        store(activated(sum, b.activation), &output.at(oh, ow));
      }
    }
  }
}

int64_t input_planes(const Shape& s) { return s.N * s.C; }

template <class T, Layout layout>
void grad_input(const Shape& s, const Buffers& b, int64_t begin, int64_t end) {
  for (int64_t item = begin; item < end; ++item) {
    const int64_t n = item / s.C, c = item % s.C;
    const auto result = split<layout>(static_cast<T*>(b.result), n, c, s.C, s.H, s.W);
    for (int64_t h = 0; h < s.H; ++h) {
      for (int64_t w = 0; w < s.W; ++w) {
        double sum = 0;
        for (int64_t m = 0; m < s.M; ++m) {
          const auto grad_output = grad_output_plane<layout, T>(s, b, n, c * s.M + m);
          const T* filter = static_cast<const T*>(b.weight) + (c * s.M + m) * s.taps();
          for (int64_t kh = 0; kh < s.KH; ++kh) {
            for (int64_t kw = 0; kw < s.KW; ++kw) {
              // The output that reads (h, w) through this tap, if there is one.
              const int64_t dh = h + s.pad_top - kh * s.dilation_h, dw = w + s.pad_left - kw * s.dilation_w;
              if (dh % s.stride_h != 0 || dw % s.stride_w != 0) continue;
              const int64_t oh = dh / s.stride_h, ow = dw / s.stride_w;
              if (grad_output.inside(oh, ow)) sum += load(grad_output.at(oh, ow)) * load(filter[kh * s.KW + kw]);
            }
          }
        }
        store(sum, &result.at(h, w));
      }
    }
  }
}

// A sum of many terms that loses none of their digits (Kahan). What an infinite total has lost is not a number.
class LongSum {
 public:
  void add(double term) {
    const double compensated = term - lost_, next = total_ + compensated;
    lost_ = std::isfinite(next) ? (next - total_) - compensated : 0;
    total_ = next;
  }
  double total() const { return total_; }

 private:
  double total_ = 0, lost_ = 0;
};

int64_t filters(const Shape& s) { return s.out_channels(); }

template <class T, Layout layout>
void grad_weight(const Shape& s, const Buffers& b, int64_t begin, int64_t end) {
  for (int64_t oc = begin; oc < end; ++oc) {
    for (int64_t kh = 0; kh < s.KH; ++kh) {
      for (int64_t kw = 0; kw < s.KW; ++kw) {
        LongSum sum;
        for (int64_t n = 0; n < s.N; ++n) {
          const auto input = input_plane<layout, T>(s, b, n, oc / s.M);
          const auto grad_output = grad_output_plane<layout, T>(s, b, n, oc);
          for (int64_t oh = 0; oh < s.OH; ++oh) {
            for (int64_t ow = 0; ow < s.OW; ++ow) {
              const int64_t h = oh * s.stride_h + kh * s.dilation_h - s.pad_top;
              const int64_t w = ow * s.stride_w + kw * s.dilation_w - s.pad_left;
              if (input.inside(h, w)) sum.add(load(input.at(h, w)) * load(grad_output.at(oh, ow)));
            }
          }
        }
        store(sum.total(), static_cast<T*>(b.result) + (oc * s.KH + kh) * s.KW + kw);
      }
    }
    if (b.grad_bias) {
      LongSum sum;
      for (int64_t n = 0; n < s.N; ++n) {
        const auto grad_output = grad_output_plane<layout, T>(s, b, n, oc);
        for (int64_t oh = 0; oh < s.OH; ++oh) {
          for (int64_t ow = 0; ow < s.OW; ++ow) sum.add(load(grad_output.at(oh, ow)));
        }
      }
      store(sum.total(), static_cast<T*>(b.grad_bias) + oc);
    }
  }
}

const char* any_shape(const Shape&) { return nullptr; }

template <int64_t (*items)(const Shape&)>
void make_plan(const Shape& shape, Plan& plan) {
  new (plan.state) Shape(shape);
  plan.workspace_bytes = 0, plan.items[0] = items(shape);
}

template <void (*compute)(const Shape&, const Buffers&, int64_t, int64_t)>
void run(const Plan& plan, const Buffers& buffers, int64_t begin, int64_t end) {
  compute(*std::launder(reinterpret_cast<const Shape*>(plan.state)), buffers, begin, end);
}

#define DWCONV_REFERENCE(operation, layout, dtype, type, items)                                                      \
  Kernel {                                                                                                           \
    #operation "_" #layout "_" #dtype "_reference", "reference", Operation::operation, DType::dtype, Layout::layout, \
        Isa::baseline, 1, any_shape, make_plan<items>, {                                                             \
      run<operation<type, Layout::layout>>                                                                           \
    }                                                                                                                \
  }
#define DWCONV_REFERENCE_OPERATIONS(layout, dtype, type)               \
  DWCONV_REFERENCE(forward, layout, dtype, type, output_planes),       \
      DWCONV_REFERENCE(grad_input, layout, dtype, type, input_planes), \
      DWCONV_REFERENCE(grad_weight, layout, dtype, type, filters)
#define DWCONV_REFERENCE_DTYPES(layout)                                                              \
  DWCONV_REFERENCE_OPERATIONS(layout, f32, float), DWCONV_REFERENCE_OPERATIONS(layout, f64, double), \
      DWCONV_REFERENCE_OPERATIONS(layout, bf16, bf16), DWCONV_REFERENCE_OPERATIONS(layout, f16, f16)

const Kernel kernels[] = {DWCONV_REFERENCE_DTYPES(nchw), DWCONV_REFERENCE_DTYPES(nhwc)};

}  // namespace

KernelList reference_kernels(Isa isa) {
  return isa == Isa::baseline ? KernelList{std::begin(kernels), std::end(kernels)} : KernelList{nullptr, nullptr};
}

}  // namespace dwconv
