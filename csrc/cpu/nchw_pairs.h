// forward and grad_input, contiguous layout (NCHW), rows of at most half a vector: the 7x7 planes at the end of a network.
//
// Method: that of nchw_gather.h, with the rows of two planes staged in the halves of one vector and the taps of both
// beside each other. A pair is staged while the one before it is computed, so that no load waits for a store.
// Bound: loads and stores.

template <class T>
struct NchwPairs {
  using A = Acc<T>;
  using Problem = Gather<T>;
  using Plan = NchwPlan<T>;
  static constexpr int L = kLanes<A>;

  static int64_t pairs(const Problem& problem) { return ceil_div(problem.channels, 2); }
  static int64_t items(Operation operation, const Shape& shape) {
    const Problem problem(operation, shape, {});
    return problem.images * pairs(problem);
  }

  // The two planes of an item; an odd one is its own partner.
  struct Pair {
    int64_t image, channel, step;
    Pair(const Problem& problem, int64_t item)
        : image(item / pairs(problem)), channel((item - image * pairs(problem)) * 2) {
      step = channel + 1 < problem.channels;
    }
    int64_t source(const Problem& problem, int64_t i, int64_t f) const {
      return image * problem.source_channels + problem.source_channel(channel + i * step, f);
    }
  };

  static void run(Operation operation, const Shape& shape, const Buffers& buffers, int64_t begin, int64_t end) {
    const Problem problem(operation, shape, buffers);
    const Plan plan(problem, 2);
    const Lattice first = residue(problem.cols, 0), second = residue(problem.cols, plan.together - 1);
    const Columns<A> columns[2] = {
        {first, first.count, problem.cols.sources, 1, 2, plan.base, plan.period, plan.columns()},
        {second, first.count, problem.cols.sources, 1, 2, plan.base, plan.period, plan.columns()}};
    alignas(kVecBytes) A scratch[2][Plan::kScratch / 2];
    const A* filters = static_cast<const A*>(buffers.workspace);

    NchwPlane<A, 2> plane;
    plane.columns = columns, plane.residues = plan.together;
    plane.first_strip = 0, plane.last_strip = plan.strips;
    plane.source_rows = problem.rows.sources, plane.fan_in = problem.fan_in;
    plane.pitch = plan.pitch(), plane.plane_pitch = problem.rows.sources * plane.pitch;
    plane.taps = problem.taps, plane.kernel_width = problem.cols.kernel;
    plane.staged = plan.staged && !plan.whole, plane.large = plan.large();
    plane.activation = problem.activation;
    plane.plain = !Plan::kConverted, plane.store_as = NchwGather<T>::store_as;
    plane.result_width = problem.cols.results;

    if (begin < end) stage(problem, plan, begin, scratch[begin % 2]);
    for (int64_t item = begin; item < end; ++item) {
      if (item + 1 < end) stage(problem, plan, item + 1, scratch[(item + 1) % 2]);
      const Pair pair(problem, item);
      plane.source = scratch[item % 2];
      plane.result = problem.result_plane(pair.image * problem.channels + pair.channel);
      plane.other_result = pair.step * problem.rows.results * problem.cols.results;
      plane.bias[0] = plane.bias[1] = 0;
      if (problem.bias) {
        plane.bias[0] = to_acc(problem.bias[pair.channel]);
        plane.bias[1] = to_acc(problem.bias[pair.channel + pair.step]);
      }
      const int64_t filter = problem.filter(pair.channel, 0) * problem.taps;
      plane.other_weight = problem.filter(pair.channel + pair.step, 0) * problem.taps - filter;
      if constexpr (Plan::kConverted) {
        plane.weight = filters + filter;
      } else {
        plane.weight = problem.weight + filter;
      }
      NchwGather<T>::walk_lattices(plane, plan.rows, 0, plan.lattice_rows);
    }
  }

  static void stage(const Problem& problem, const Plan& plan, int64_t item, A* to) {
    const Pair pair(problem, item);
    for (int64_t f = 0; f < problem.fan_in; ++f, to += problem.rows.sources * plan.pitch()) {
      const T* sources[2];
      for (int i = 0; i < 2; ++i) sources[i] = problem.source + pair.source(problem, i, f) * plan.source_plane();
      if constexpr (!Plan::kConverted) {
        if (plan.period == 1) {
          stage_vectors(sources[0], sources[1], problem, to - plan.base, plan.pitch());
          continue;
        }
      }
      for (int i = 0; i < 2; ++i) plan.stage(sources[i], {0, problem.rows.sources}, 0, to + i * (L / 2));
    }
  }

  // Both rows in one store.
  static void stage_vectors(const A* first, const A* second, const Problem& problem, A* to, int64_t pitch) {
    const int64_t width = problem.cols.sources;
    const Mask<A> low = lanes<A>(0, width), high = lanes<A>(L / 2, L / 2 + width);
    second -= L / 2;
    for (int64_t y = 0; y < problem.rows.sources; ++y, to += pitch, first += width, second += width) {
      if constexpr (sizeof(A) == 4) {
        const __m512 row = _mm512_maskz_loadu_ps(__mmask16(low.bits), first);
        store(to, (Vec<A>)_mm512_mask_loadu_ps(row, __mmask16(high.bits), second));
      } else {
        const __m512d row = _mm512_maskz_loadu_pd(__mmask8(low.bits), first);
        store(to, (Vec<A>)_mm512_mask_loadu_pd(row, __mmask8(high.bits), second));
      }
    }
  }

  static const char* supports(Operation operation, const Shape& shape) {
    const Problem problem(operation, shape, {});
    if (residues(problem.cols) > 2) return "it interleaves at most two residues of a row";
    const Plan plan(problem, 2);
    if (2 * residue(problem.cols, 0).count > L || 2 * ceil_div(problem.cols.sources, plan.period) > L) {
      return "two rows of the result do not fit into one vector";
    }
    if (2 * problem.fan_in * problem.rows.sources * plan.pitch() > Plan::kScratch)
      return "two planes do not fit into scratch";
    return nullptr;
  }
};

template <class T, Operation operation>
struct NchwPairsKernel : NchwGatherKernel<T, operation> {
  static int64_t prepare_items(const Shape& shape) {
    return NchwPlan<T>::kConverted ? Gather<T>(operation, shape, {}).filters() : 0;
  }
  static int64_t items(const Shape& shape) { return NchwPairs<T>::items(operation, shape); }
  static void run(const Shape& shape, const Buffers& buffers, int64_t begin, int64_t end) {
    NchwPairs<T>::run(operation, shape, buffers, begin, end);
  }
  static const char* supports(const Shape& shape) { return NchwPairs<T>::supports(operation, shape); }
  static constexpr Stage stages[] = {{prepare_items, NchwGatherKernel<T, operation>::prepare}, {items, run}};
};
template <class T>
using NchwForwardPairs = NchwPairsKernel<T, Operation::forward>;
template <class T>
using NchwGradInputPairs = NchwPairsKernel<T, Operation::grad_input>;
