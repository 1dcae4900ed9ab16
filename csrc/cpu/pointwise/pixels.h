// pointwise and pointwise_grad_input, channels last (NHWC): the dense convolution, after packing the weights.
//
// Method: a stage packs the weights of the call, for grad_input those of the transposed matrix, and the tiles of
// dense/panels.h do the rest.
// Bound: FMA; bytes where channels are few.
#if defined(DWCONV_CPU_POINTWISE_PIXELS_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_POINTWISE_PIXELS_H
#undef DWCONV_CPU_POINTWISE_PIXELS_H
#else
#define DWCONV_CPU_POINTWISE_PIXELS_H
#endif

#include "../axis/planes.h"
#include "../dense/panels.h"
#include "supports.h"

DWCONV_BEGIN_TARGET

template <class T>
class PointwisePixels {
 public:
  PointwisePixels(Operation operation, const Shape& s)
      : is_gradient_(operation == Operation::pointwise_grad_input),
        sources_(is_gradient_ ? s.M : s.C),
        results_(is_gradient_ ? s.C : s.M),
        dense_(Operation::dense, {s.N, sources_, results_, s.H, s.W, 1, 1, s.H, s.W, 1, 1, 1, 1, 0, 0}) {}

  static const char* supports(Operation, const Shape& s) { return pointwise_refusal(s); }

  int64_t workspace_bytes() const { return pack_items() * kPanel * sources_ * int64_t(sizeof(T)); }

  // An item is a panel.
  int64_t pack_items() const { return ceil_div(results_, kPanel); }

  void pack(const Buffers& buffers, int64_t begin, int64_t end) const {
    const T* weight = static_cast<const T*>(buffers.weight);
    for (int64_t panel = begin; panel < end; ++panel) {
      for (int j = 0; j < P; ++j) {
        T* to = static_cast<T*>(buffers.workspace) + panel * kPanel * sources_ + j * L;
        const int64_t vector = panel * P + j;
        if (is_gradient_) {
          const Mask<A> mask = lanes<A>(0, results_ - vector * L);
          const T* from = weight + vector * L;
          for (int64_t i = 0; i < sources_; ++i, from += results_) store(to + i * kPanel, load(from, mask));
        } else {
          const Planes<const T> rows = {weight, results_, 0, sources_};
          rows.to_places(0, vector, 0, sources_, to, [](int64_t i) { return i * kPanel; });
        }
      }
    }
  }

  int64_t items() const { return dense_.items(); }

  void run(const Buffers& buffers, int64_t begin, int64_t end) const {
    Buffers packed;
    packed.input = is_gradient_ ? buffers.grad_output : buffers.input;
    packed.weight = buffers.workspace;
    packed.bias = buffers.bias;
    packed.result = buffers.result;
    dense_.run(packed, begin, end);
  }

  static constexpr Stage<PointwisePixels> stages[] = {{&PointwisePixels::pack_items, &PointwisePixels::pack},
                                                      {&PointwisePixels::items, &PointwisePixels::run}};

 private:
  using A = Acc<T>;
  static_assert(std::is_same_v<A, T>, "the bias is in the accumulator's type");
  static constexpr int L = kLanes<A>, P = kPanelVectors<A>;

  bool is_gradient_;
  int64_t sources_, results_;
  DensePanels<T> dense_;
};

DWCONV_END_TARGET

#endif  // DWCONV_CPU_POINTWISE_PIXELS_H
