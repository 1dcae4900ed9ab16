// forward and grad_input, contiguous layout (NCHW), 3x3 and 5x5 at a stride of 2, with AVX-512 or AVX2.
//
// Even and odd columns are the two phases of a row at a stride of 2. Nothing is copied: the tiles take them apart, or
// interleave them, in registers. The methods and their bounds stand in phases_forward.h and phases_grad_input.h, the loop
// over planes in phases_walk.h. Here is the choice between their tiles.
#if defined(DWCONV_CPU_NCHW_PHASES_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_NCHW_PHASES_H
#undef DWCONV_CPU_NCHW_PHASES_H
#else
#define DWCONV_CPU_NCHW_PHASES_H
#endif

#include "../kernel_list.h"
#include "../one_of.h"
#include "phases_forward.h"
#include "phases_grad_input.h"

DWCONV_BEGIN_TARGET
#if DWCONV_VEC_BYTES >= 32

template <class T, Operation kOperation>
class NchwPhases {
 public:
  NchwPhases(Operation operation, const Shape& shape) : problem_(operation, shape) {
    problem_.cols.kernel == 3 ? choose<3>() : choose<5>();
  }

  static const char* supports(Operation operation, const Shape& s) {
    if (s.stride_h != 2 || s.stride_w != 2) return "the stride is not 2";
    if (s.KH != s.KW || (s.KH != 3 && s.KH != 5)) return "it takes 3x3 and 5x5";
    if (s.dilation_h != 1 || s.dilation_w != 1) return "there is a dilation";
    if (s.M != 1) return "there is a channel multiplier";
    if (operation == Operation::grad_input && (s.pad_top + s.pad_left) % 2 != 0) {
      return "one padding is even, the other odd";
    }
    return nullptr;
  }

  int64_t workspace_bytes() const { return 0; }

  // An item a band of a plane.
  int64_t items() const { return problem_.planes() * parts_; }
  void run(const Buffers& buffers, int64_t begin, int64_t end) const {
    walk_.run(GatherCall<T>(problem_, buffers), begin, end);
  }
  static constexpr Stage<NchwPhases> stages[] = {{&NchwPhases::items, &NchwPhases::run}};

 private:
  template <int K>
  void choose() {
    if constexpr (kOperation == Operation::forward) {
      choose_width<PhasesForward<T, K, true>, PhasesForward<T, K, false>>();
    } else if (problem_.cols.pad % 2 == 0) {
      choose_width<PhasesGradInput<T, K, true, 0>, PhasesGradInput<T, K, false, 0>>();
    } else {
      choose_width<PhasesGradInput<T, K, true, 1>, PhasesGradInput<T, K, false, 1>>();
    }
  }

  template <class Narrow, class Wide>
  void choose_width() {
    if constexpr (kVecBytes == 64) {
      if (Narrow::fits(problem_)) return use<PhaseWalk<Narrow>>();
    }
    use<PhaseWalk<Wide>>();
  }

  template <class Walk>
  void use() {
    walk_.template make<Walk>(problem_);
    parts_ = Walk::parts(problem_);
  }

  Gather problem_;
  int64_t parts_;  // bands of a plane
  OneOf<GatherCall<T>, 4096> walk_;
};

template <class T>
using NchwPhasesForward = NchwPhases<T, Operation::forward>;
template <class T>
using NchwPhasesGradInput = NchwPhases<T, Operation::grad_input>;

#endif
DWCONV_END_TARGET

#endif  // DWCONV_CPU_NCHW_PHASES_H
