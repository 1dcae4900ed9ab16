// The weights as the NHWC tiles read them: [vector of channels][row lattice][column lattice][row][tap][lane], in the
// accumulator's type. In forward that is the order of the filter; grad_input has a lattice for each residue of the
// stride, whose taps are every n-th, counted from the last one back.

// Where a row or column k of taps is packed: place t among the `taps` of its residue, which follow `before` others.
struct TapPlace {
  int64_t before, t, taps;
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
    for (int64_t tap = 0; tap < std::min(kKept, rows.kernel * cols.kernel); ++tap) kept_[tap] = compute(tap);
  }
  int64_t operator()(int64_t tap) const { return tap < kKept ? kept_[tap] : compute(tap); }

 private:
  int64_t compute(int64_t tap) const {
    if (!rows_.transposed) return tap;
    if (rows_.stride == 1 && cols_.stride == 1) return rows_.kernel * cols_.kernel - 1 - tap;
    const TapPlace row(rows_, tap / cols_.kernel), col(cols_, tap % cols_.kernel);
    return row.before * cols_.kernel + row.taps * col.before + row.t * col.taps + col.t;
  }

  static constexpr int64_t kKept = 64;
  Axis rows_, cols_;
  int64_t kept_[kKept];
};

// Packs vectors of channels [begin, end). The last vector ends with the last channel: it may share some with the one before.
template <class T>
static void pack_taps(const Gather<T>& problem, Acc<T>* packed, int64_t begin, int64_t end) {
  using A = Acc<T>;
  constexpr int L = kLanes<A>;
  const int64_t taps = problem.taps;
  const TapPlaces places(problem.rows, problem.cols);
  packed += begin * taps * L;
  for (int64_t v = begin; v < end; ++v, packed += taps * L) {
    const T* filters = problem.weight + std::min(v * L, problem.channels - L) * taps;
    for (int64_t tap = 0; tap < taps; tap += L) {
      const Mask<A> mask = lanes<A>(0, taps - tap);
      Vec<A> rows[L];
      DWCONV_UNROLL
      for (int l = 0; l < L; ++l) rows[l] = load(filters + l * taps + tap, mask);
      transpose_lanes<A>(rows);
      DWCONV_UNROLL  // so that the rows stay in registers
          for (int l = 0; l < L; ++l) {
        if (l < mask.hi) store(packed + places(tap + l) * L, rows[l]);
      }
    }
  }
}
