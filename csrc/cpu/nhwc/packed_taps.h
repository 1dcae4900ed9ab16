// The weights as the NHWC tiles read them: [vector of channels][row lattice][column lattice][row][tap][lane], in the
// accumulator's type. In forward that is the order of the filter; grad_input has a lattice for each residue of the
// stride, whose taps are every n-th, counted from the last one back.
#if defined(DWCONV_CPU_NHWC_PACKED_TAPS_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_NHWC_PACKED_TAPS_H
#undef DWCONV_CPU_NHWC_PACKED_TAPS_H
#else
#define DWCONV_CPU_NHWC_PACKED_TAPS_H
#endif

#include "../axis/gather.h"
#include "../simd/lanes.h"

DWCONV_BEGIN_TARGET

// Where a row or column k of taps is packed: place t among the `taps` of its residue, which follow `before` others.
struct TapPlace {
  int64_t before, t, taps;
  TapPlace() = default;
  TapPlace(const Axis& axis, int64_t k) : before(0), t(k), taps(axis.kernel) {
    if (!axis.transposed) return;
    for (int64_t r = 0;; ++r) {
      const Lattice lattice = residue(axis, r);
      taps = lattice.taps;
      if (taps > 0 && (lattice.k - k) % lattice.k_step == 0) {
        t = (lattice.k - k) / -lattice.k_step;
        return;
      }
      before += taps;
    }
  }
};

// Taps of an axis that are packed before those of a lattice.
static inline int64_t taps_before(const Axis& axis, const Lattice& lattice) {
  return lattice.taps > 0 ? TapPlace(axis, lattice.k).before : 0;
}

// Where each tap of a filter goes; the first ones are computed once.
class TapPlaces {
 public:
  TapPlaces(const Axis& rows, const Axis& cols) : rows_(rows), cols_(cols) {
    if (step() != 0) return;
    TapPlace of_column[kKept];
    for (int64_t col = 0; col < std::min(kKept, cols.kernel); ++col) of_column[col] = TapPlace(cols, col);
    for (int64_t row = 0; row < rows.kernel && row * cols.kernel < kKept; ++row) {
      const TapPlace of_row(rows, row);
      for (int64_t tap = row * cols.kernel; tap < std::min(kKept, (row + 1) * cols.kernel); ++tap) {
        kept_[tap] = place(of_row, of_column[tap - row * cols.kernel]);
      }
    }
  }
  // From one tap to the next, if that is the same for all; or 0.
  int64_t step() const { return !rows_.transposed ? 1 : rows_.stride == 1 && cols_.stride == 1 ? -1 : 0; }
  int64_t operator()(int64_t tap) const {
    if (step() == 1) return tap;
    if (step() == -1) return rows_.kernel * cols_.kernel - 1 - tap;
    if (tap < kKept) return kept_[tap];
    return place(TapPlace(rows_, tap / cols_.kernel), TapPlace(cols_, tap % cols_.kernel));
  }

 private:
  int64_t place(const TapPlace& row, const TapPlace& col) const {
    return row.before * cols_.kernel + row.taps * col.before + row.t * col.taps + col.t;
  }

  static constexpr int64_t kKept = 64;
  Axis rows_, cols_;
  int64_t kept_[kKept];
};

// Packs vectors of channels [begin, end), the first one to `packed`. The last vector ends with the last channel: it may
// share some with the one before.
template <class T>
static void pack_taps(const GatherCall<T>& call, const TapPlaces& places, Acc<T>* packed, int64_t begin, int64_t end) {
  using A = Acc<T>;
  constexpr int L = kLanes<A>;
  const int64_t taps = call.taps;
  for (int64_t v = begin; v < end; ++v, packed += taps * L) {
    const T* filters = call.weight + std::min(v * L, call.channels - L) * taps;
    for (int64_t next = 0; next < taps; next += L) {
      const int64_t tap = std::max<int64_t>(0, std::min(next, taps - L));  // some twice rather than masked
      Vec<A> rows[L];
      if (taps >= L) {
        DWCONV_UNROLL
        for (int l = 0; l < L; ++l) rows[l] = load(filters + l * taps + tap);
      } else {
        const Mask<A> mask = lanes<A>(0, taps);
        DWCONV_UNROLL
        for (int l = 0; l < L; ++l) rows[l] = load(filters + l * taps, mask);
      }
      transpose_lanes<A>(rows);
      if (taps >= L && places.step() != 0) {
        A* to = packed + places(tap) * L;
        DWCONV_UNROLL
        for (int l = 0; l < L; ++l) store(to + l * places.step() * L, rows[l]);
      } else {
        DWCONV_UNROLL  // so that the rows stay in registers
            for (int l = 0; l < L; ++l) {
          if (l < taps) store(packed + places(tap + l) * L, rows[l]);
        }
      }
    }
  }
}

DWCONV_END_TARGET

#endif  // DWCONV_CPU_NHWC_PACKED_TAPS_H
