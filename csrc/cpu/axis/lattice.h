// How results and sources of an operation are laid along one axis: the arithmetic that every vectorised kernel shares.
//
// forward      result o reads source  o*stride + k*dilation - pad                  for every k
// grad_input   result i reads source (i + pad - k*dilation) / stride               for the k where that divides
//
// Take the results of one residue class, first + period*j. In both operations their sources form an arithmetic progression in
// j and in the tap number t, so both are one computation, a gather; grad_weight walks the same lattice as forward.
#pragma once
#include <algorithm>
#include <cstdint>
#include <numeric>

#include "../../kernel.h"

namespace dwconv {

// Sizes along one axis. Results are what the operation computes (for grad_weight: the grad_output it sums over).
struct Axis {
  int64_t results, sources, kernel, stride, dilation, pad;
  bool transposed;  // grad_input
};

static inline Axis vertical_axis(Operation operation, const Shape& s) {
  const bool transposed = operation == Operation::grad_input;
  return {transposed ? s.H : s.OH, transposed ? s.OH : s.H, s.KH, s.stride_h, s.dilation_h, s.pad_top, transposed};
}

static inline Axis horizontal_axis(Operation operation, const Shape& s) {
  const bool transposed = operation == Operation::grad_input;
  return {transposed ? s.W : s.OW, transposed ? s.OW : s.W, s.KW, s.stride_w, s.dilation_w, s.pad_left, transposed};
}

// Result first + period*j, for j in [0, count), reads source + source_period*j + tap_step*t through the kernel element
// k + k_step*t, for t in [0, taps). Sources outside the axis are to be skipped. tap_step is positive.
struct Lattice {
  int64_t first, period, count;
  int64_t source, source_period, tap_step;
  int64_t taps, k, k_step;

  // After refine(): tap t of result j and tap t - reuse() of result j + 1 read the same source.
  int64_t reuse() const { return source_period / tap_step; }
};

static inline int64_t ceil_div(int64_t a, int64_t b) { return a > 0 ? (a - 1) / b + 1 : a / b; }

static inline int64_t residues(const Axis& axis) { return axis.transposed ? axis.stride : 1; }

static inline Lattice residue(const Axis& axis, int64_t r) {
  if (!axis.transposed) {
    const int64_t tap_step = axis.kernel > 1 ? axis.dilation : axis.stride;
    return {0, 1, axis.results, -axis.pad, axis.stride, tap_step, axis.kernel, 0, 1};
  }
  const int64_t count = std::max<int64_t>(0, ceil_div(axis.results - r, axis.stride));
  // The taps that reach this residue: every k_step-th one, from the first k that divides.
  const int64_t k_step = axis.stride / std::gcd(axis.stride, axis.dilation);
  int64_t k = 0;
  while (k < std::min(k_step, axis.kernel) && (r + axis.pad - k * axis.dilation) % axis.stride != 0) ++k;
  if (k >= std::min(k_step, axis.kernel)) return {r, axis.stride, count, 0, 1, 1, 0, 0, 0};
  const int64_t taps = (axis.kernel - 1 - k) / k_step + 1;
  const int64_t tap_step = taps > 1 ? k_step * axis.dilation / axis.stride : 1;
  // Counted from the last tap back, so that sources ascend with t.
  const int64_t source = (r + axis.pad - k * axis.dilation) / axis.stride - (taps - 1) * tap_step;
  return {r, axis.stride, count, source, 1, tap_step, taps, k + k_step * (taps - 1), -k_step};
}

// A lattice splits into refinements() interleaved ones in which neighbouring results share sources.
static inline int64_t refinements(const Lattice& lattice) {
  return lattice.tap_step / std::gcd(lattice.tap_step, lattice.source_period);
}

static inline Lattice refine(const Lattice& lattice, int64_t part) {
  const int64_t parts = refinements(lattice);
  Lattice fine = lattice;
  fine.first += lattice.period * part;
  fine.period *= parts;
  fine.count = std::max<int64_t>(0, ceil_div(lattice.count - part, parts));
  fine.source += lattice.source_period * part;
  fine.source_period *= parts;
  return fine;
}

// The lattices of an axis, which together hold each result once: its residues, or those refined. The first few are
// kept, since every plane or row asks for them again; dilation and stride beyond that recompute.
class Lattices {
 public:
  Lattices(const Axis& axis, bool refined) : axis_(axis), refined_(refined) {
    for (int64_t r = 0; r < residues(axis); ++r) {
      const Lattice coarse = residue(axis, r);
      for (int64_t part = 0; part < parts(coarse); ++part, ++count_) {
        if (count_ < kKept) kept_[count_] = refined ? refine(coarse, part) : coarse;
      }
    }
  }

  int64_t count() const { return count_; }

  // Lattice i: a kept one, or else in `spare`. By reference, since a copy just after construction stalls.
  const Lattice& at(int64_t i, Lattice& spare) const {
    if (i < kKept) return kept_[i];
    int64_t r = 0;
    for (; i >= parts(residue(axis_, r)); ++r) i -= parts(residue(axis_, r));
    spare = refined_ ? refine(residue(axis_, r), i) : residue(axis_, r);
    return spare;
  }

 private:
  int64_t parts(const Lattice& coarse) const { return refined_ ? refinements(coarse) : 1; }

  static constexpr int64_t kKept = 16;
  Axis axis_;
  bool refined_;
  int64_t count_ = 0;
  Lattice kept_[kKept];
};

// The i in [lo, hi) for which base + step*i lies in [0, size), counted from 0.
struct Range {
  int64_t lo, hi;
};

static inline Range inside(int64_t base, int64_t step, int64_t size) {
  if (step == 1) return {std::max<int64_t>(0, -base), std::max<int64_t>(0, size - base)};
  return {std::max<int64_t>(0, ceil_div(-base, step)), std::max<int64_t>(0, ceil_div(size - base, step))};
}

}  // namespace dwconv
