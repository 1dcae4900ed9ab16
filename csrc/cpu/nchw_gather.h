// forward and grad_input, contiguous layout (NCHW), any geometry.
//
// Method: a vector runs along a row of results, a tile goes down R rows of it (nchw_tiles.h, nchw_rows.h). Source rows
// are read where they lie if they hold the accumulator's type and neighbouring results read neighbouring sources.
// Others (16-bit types, a stride along the row) are staged (nchw_stage.h). grad_input at a stride of 2 computes both
// residues of a row and interleaves them as it stores.
// Bound: bytes for 3x3, FMA from 5x5 on.

template <class T>
struct NchwGather {
  using A = Acc<T>;
  using Problem = Gather<T>;
  using Plan = NchwPlan<T>;
  static constexpr int L = kLanes<A>;

  // Stage 1: weights in the accumulator's type, and all source planes where no scratch has room for enough rows.
  static int64_t prepare_items(Operation operation, const Shape& shape) {
    const Problem problem(operation, shape, {});
    const Plan plan(problem);
    return plan.packed_filters() + plan.prepared_planes();
  }

  static void prepare(Operation operation, const Shape& shape, const Buffers& buffers, int64_t begin, int64_t end) {
    const Problem problem(operation, shape, buffers);
    const Plan plan(problem);
    A* filters = static_cast<A*>(buffers.workspace);
    A* planes = filters + plan.packed_filters() * problem.taps;
    for (int64_t item = begin; item < end; ++item) {
      if (item < plan.packed_filters()) {
        const T* filter = problem.weight + item * problem.taps;
        for (int64_t tap = 0; tap < problem.taps; ++tap) filters[item * problem.taps + tap] = to_acc(filter[tap]);
      } else {
        const int64_t index = item - plan.packed_filters();
        plan.stage(problem.source + index * plan.source_plane(), {0, problem.rows.sources}, 0,
                   planes + index * problem.rows.sources * plan.pitch());
      }
    }
  }

  static int64_t workspace_bytes(Operation operation, const Shape& shape) {
    const Problem problem(operation, shape, {});
    const Plan plan(problem);
    const int64_t planes = plan.prepared_planes() * problem.rows.sources * plan.pitch();
    return (plan.packed_filters() * problem.taps + planes) * int64_t(sizeof(A));
  }

  // Stage 2, an item a band of a result plane.
  static int64_t items(Operation operation, const Shape& shape) {
    const Problem problem(operation, shape, {});
    return problem.images * problem.channels * Plan(problem).bands_of_plane();
  }

  static void run(Operation operation, const Shape& shape, const Buffers& buffers, int64_t begin, int64_t end) {
    const Problem problem(operation, shape, buffers);
    const Plan plan(problem);
    for (int64_t r = 0; r < residues(problem.cols); r += plan.together) {
      run_residues(problem, plan, buffers, r, begin, end);
    }
  }

  static void run_residues(const Problem& problem, const Plan& plan, const Buffers& buffers, int64_t r, int64_t begin,
                           int64_t end) {
    const Lattice first = residue(problem.cols, r), second = residue(problem.cols, r + plan.together - 1);
    const Columns<A> columns[2] = {
        {first, first.count, problem.cols.sources, plan.vectors, 1, plan.base, plan.period, plan.columns()},
        {second, first.count, problem.cols.sources, plan.vectors, 1, plan.base, plan.period, plan.columns()}};
    alignas(kVecBytes) A scratch[Plan::kScratch];
    const int64_t strips = columns->strips;  // of these residues: shorter ones may have fewer
    const A* filters = static_cast<const A*>(buffers.workspace);
    const A* planes = filters + plan.packed_filters() * problem.taps;

    NchwPlane<A> plane;
    plane.columns = columns, plane.residues = plan.together;
    plane.source_rows = problem.rows.sources, plane.fan_in = problem.fan_in;
    plane.pitch = plan.pitch(), plane.plane_pitch = problem.rows.sources * plane.pitch;
    plane.other_weight = plane.other_result = 0;
    plane.taps = problem.taps, plane.kernel_width = problem.cols.kernel;
    plane.staged = plan.staged && !plan.whole, plane.large = plan.large();
    plane.activation = problem.activation;
    plane.plain = !Plan::kConverted, plane.store_as = store_as, plane.result_width = problem.cols.results;

    const int64_t parts = plan.bands_of_plane();
    const int64_t length = parts == 1 ? plan.lattice_rows : round_up(ceil_div(plan.lattice_rows, parts), plane.kBand);
    int64_t index = begin / parts, part = begin % parts;
    int64_t image = index / problem.channels, channel = index % problem.channels;
    for (int64_t item = begin; item < end; ++item) {
      const int64_t begin_row = part * length, end_row = std::min(plan.lattice_rows, begin_row + length);
      const int64_t source_index = image * problem.source_channels + problem.source_channel(channel, 0);
      const int64_t filter = problem.filter(channel, 0) * problem.taps;
      const T* source = problem.source + source_index * plan.source_plane();
      plane.result = problem.result_plane(index);
      plane.bias[0] = problem.bias ? to_acc(problem.bias[channel]) : A(0);
      plane.first_strip = 0, plane.last_strip = strips;
      if constexpr (Plan::kConverted) {
        plane.weight = filters + filter;
      } else {
        plane.weight = problem.weight + filter;
        plane.source = source + plan.base;
      }
      if (plan.whole) plane.source = planes + source_index * plane.plane_pitch;
      if (!plan.staged || plan.whole) walk_lattices(plane, plan.rows, begin_row, end_row);
      for (int64_t row = begin_row; plan.staged && !plan.whole && row < end_row; row += plan.band) {
        const int64_t stop = std::min(end_row, row + plan.band);
        const Range needed = plan.source_rows(row, stop);
        plane.plane_pitch = (needed.hi - needed.lo) * plane.pitch;
        plane.source = scratch - needed.lo * plane.pitch;
        for (int64_t strip = 0; strip < strips; strip += plan.group) {
          plane.first_strip = strip, plane.last_strip = std::min(strips, strip + plan.group);
          for (int64_t f = 0; f < problem.fan_in; ++f) {
            plan.stage(source + f * plan.source_plane(), needed, strip, scratch + f * plane.plane_pitch);
          }
          walk_lattices(plane, plan.rows, row, stop);
        }
      }
      if (++part < parts) continue;
      part = 0, ++index;
      if (++channel == problem.channels) channel = 0, ++image;
    }
  }

  // Rows [begin, end) of all lattices.
  template <class Plane>
  static void walk_lattices(const Plane& plane, const Lattices& rows, int64_t begin, int64_t end) {
    for (int64_t i = 0; i < rows.count(); ++i) {
      Lattice spare;
      const Lattice& lattice = rows.at(i, spare);
      if (begin < lattice.count) plane.walk_of(lattice)(plane, lattice, begin, std::min(end, lattice.count));
    }
  }

  static void store_as(void* results, int64_t at, int64_t step, Vec<A> value, const Mask<A>& mask) {
    T* to = static_cast<T*>(results) + at;
    if (step == 1) return store(to, value, mask);
    store_lanes(to, step, value, mask);
  }
};

template <class T, Operation operation>
struct NchwGatherKernel {
  using Body = NchwGather<T>;
  static int64_t prepare_items(const Shape& shape) { return Body::prepare_items(operation, shape); }
  static void prepare(const Shape& shape, const Buffers& buffers, int64_t begin, int64_t end) {
    Body::prepare(operation, shape, buffers, begin, end);
  }
  static int64_t items(const Shape& shape) { return Body::items(operation, shape); }
  static void run(const Shape& shape, const Buffers& buffers, int64_t begin, int64_t end) {
    Body::run(operation, shape, buffers, begin, end);
  }
  static const char* supports(const Shape&) { return nullptr; }
  static int64_t workspace_bytes(const Shape& shape) { return Body::workspace_bytes(operation, shape); }
  static constexpr Stage stages[] = {{prepare_items, prepare}, {items, run}};
};
template <class T>
using NchwForward = NchwGatherKernel<T, Operation::forward>;
template <class T>
using NchwGradInput = NchwGatherKernel<T, Operation::grad_input>;
