// forward and grad_input, contiguous layout (NCHW), 3x3 and 5x5 at a stride of 2, with AVX-512: of any type.
// Nothing is staged. The methods and their bounds stand in nchw_stride2_forward.h and nchw_stride2_grad_input.h, the loop
// over planes in nchw_stride2_walk.h; here is the choice between their tiles.

// Which tile a shape is for.
template <class T, Operation operation>
struct NchwStride2Kernel {
  using Problem = Gather<T>;

  // What is done with the walk that fits the problem.
  template <class Use>
  static auto choose(const Problem& problem, const Use& use) {
    return problem.cols.kernel == 3 ? choose_width<3>(problem, use) : choose_width<5>(problem, use);
  }
  template <int K, class Use>
  static auto choose_width(const Problem& problem, const Use& use) {
    if constexpr (operation == Operation::forward) {
      return choose_narrow<Stride2Forward<T, K, true>, Stride2Forward<T, K, false>>(problem, use);
    } else if (problem.cols.pad % 2 == 0) {
      return choose_narrow<Stride2GradInput<T, K, true, 0>, Stride2GradInput<T, K, false, 0>>(problem, use);
    } else {
      return choose_narrow<Stride2GradInput<T, K, true, 1>, Stride2GradInput<T, K, false, 1>>(problem, use);
    }
  }
  template <class Narrow, class Wide, class Use>
  static auto choose_narrow(const Problem& problem, const Use& use) {
    return Narrow::fits(problem) ? use(Stride2Walk<Narrow>{}) : use(Stride2Walk<Wide>{});
  }

  static const char* supports(const Shape& s) {
    if (s.stride_h != 2 || s.stride_w != 2) return "it is made for a stride of 2";
    if (s.KH != s.KW || (s.KH != 3 && s.KH != 5)) return "it is made for 3x3 and 5x5";
    if (s.dilation_h != 1 || s.dilation_w != 1) return "it knows no dilation";
    if (s.M != 1) return "it knows no channel multiplier";
    if (operation == Operation::grad_input && (s.pad_top + s.pad_left) % 2 != 0) {
      return "it wants both paddings even or both odd";
    }
    return nullptr;
  }
  static int64_t items(const Shape& shape) {
    const Problem problem(operation, shape, {});
    return choose(problem, [&](auto walk) { return walk.items(problem); });
  }
  static void run(const Shape& shape, const Buffers& buffers, int64_t begin, int64_t end) {
    const Problem problem(operation, shape, buffers);
    choose(problem, [&](auto walk) { walk.run(problem, begin, end); });
  }
  static constexpr int64_t (*workspace_bytes)(const Shape&) = nullptr;
  static constexpr Stage stages[] = {{items, run}};
};
template <class T>
using NchwForwardStride2 = NchwStride2Kernel<T, Operation::forward>;
template <class T>
using NchwGradInputStride2 = NchwStride2Kernel<T, Operation::grad_input>;
