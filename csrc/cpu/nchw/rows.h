// forward and grad_input, contiguous layout (NCHW), any geometry.
//
// Method: a vector runs along a row of results, a tile goes down R rows of it (plane.h, row_sums.h). Source rows are read
// where they lie if they hold the accumulator's type and neighbouring results read neighbouring sources. Others (16-bit
// types, a stride along the row) are copied into scratch first (source_rows.h). grad_input at a stride of 2 computes both
// residues of a row and interleaves them as it stores.
// Bound: bytes for 3x3, FMA from 5x5 on.
#if defined(DWCONV_CPU_NCHW_ROWS_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_NCHW_ROWS_H
#undef DWCONV_CPU_NCHW_ROWS_H
#else
#define DWCONV_CPU_NCHW_ROWS_H
#endif

#include "../axis/bands.h"
#include "../kernel_list.h"
#include "source_rows.h"

DWCONV_BEGIN_TARGET

template <class T>
class NchwRows {
 public:
  using A = Acc<T>;
  static constexpr int L = kLanes<A>;

  NchwRows(Operation operation, const Shape& shape)
      : plan_(Gather(operation, shape)), parts_(plan_.bands_of_plane()), part_rows_(rows_of_part()) {
    const Gather& problem = plan_.problem;
    make_columns(0, columns_);
    plane_.residues = plan_.together;
    plane_.source_rows = problem.rows.sources, plane_.pitch = plan_.pitch();
    plane_.fan_in = problem.fan_in, plane_.taps = problem.taps, plane_.kernel_width = problem.cols.kernel;
    plane_.result_width = problem.cols.results;
    plane_.copied = plan_.copied && !plan_.whole;
    plane_.large = problem.elements() * int64_t(sizeof(T)) > caches::kResultsInCache;
    plane_.plain = !kConverted, plane_.store_as = store_as;
  }

  static const char* supports(Operation, const Shape&) { return nullptr; }

  int64_t workspace_bytes() const {
    const int64_t planes = plan_.copied_planes() * plan_.problem.rows.sources * plan_.pitch();
    return (plan_.converted_filters() * plan_.problem.taps + planes) * int64_t(sizeof(A));
  }

  // Stage 1: weights in the accumulator's type, and all source planes where no scratch has room for enough rows.
  int64_t convert_items() const { return plan_.converted_filters() + plan_.copied_planes(); }

  void convert(const Buffers& buffers, int64_t begin, int64_t end) const {
    const GatherCall<T> call(plan_.problem, buffers);
    A* filters = static_cast<A*>(buffers.workspace);
    A* planes = filters + plan_.converted_filters() * call.taps;
    for (int64_t item = begin; item < end; ++item) {
      if (item < plan_.converted_filters()) {
        const T* filter = call.weight + item * call.taps;
        for (int64_t tap = 0; tap < call.taps; ++tap) filters[item * call.taps + tap] = to_acc(filter[tap]);
      } else {
        const int64_t index = item - plan_.converted_filters();
        plan_.copy(call.source + index * call.source_plane(), {0, call.rows.sources}, 0,
                   planes + index * call.rows.sources * plan_.pitch());
      }
    }
  }

  // Stage 2, an item a band of a result plane.
  int64_t items() const { return plan_.problem.planes() * parts_; }

  void run(const Buffers& buffers, int64_t begin, int64_t end) const {
    const GatherCall<T> call(plan_.problem, buffers);
    run_residues(call, buffers, columns_, begin, end);
    for (int64_t r = plan_.together; r < residues(call.cols); r += plan_.together) {
      Columns<A> others[1];  // more than two residues do not go together
      make_columns(r, others);
      run_residues(call, buffers, others, begin, end);
    }
  }

  static constexpr Stage<NchwRows> stages[] = {{&NchwRows::convert_items, &NchwRows::convert},
                                               {&NchwRows::items, &NchwRows::run}};

 private:
  static constexpr bool kConverted = SourceRows<T>::kConverted;

  int64_t rows_of_part() const {
    return parts_ == 1 ? plan_.lattice_rows : round_up(ceil_div(plan_.lattice_rows, parts_), NchwPlane<A>::kBand);
  }

  // Of residue r and, where two go together, the next one.
  void make_columns(int64_t r, Columns<A>* columns) const {
    const Axis& cols = plan_.problem.cols;
    const Lattice first = residue(cols, r);
    for (int64_t i = 0; i < plan_.together; ++i) {
      new (columns + i) Columns<A>(i == 0 ? first : residue(cols, r + i), first.count, cols.sources, plan_.vectors,
                                   plan_.base, plan_.period, plan_.columns());
    }
  }

  void run_residues(const GatherCall<T>& call, const Buffers& buffers, const Columns<A>* columns, int64_t begin,
                    int64_t end) const {
    alignas(kVecBytes) A scratch[SourceRows<T>::kScratch];
    const int64_t strips = columns->strips;  // of these residues: shorter ones may have fewer
    const A* filters = static_cast<const A*>(buffers.workspace);
    const A* planes = filters + plan_.converted_filters() * call.taps;
    NchwPlane<A> plane(plane_, columns, call.activation);
    plane.plane_pitch = call.rows.sources * plan_.pitch();

    int64_t index = begin / parts_, part = begin % parts_;
    int64_t image = index / call.channels, channel = index % call.channels;
    for (int64_t item = begin; item < end; ++item) {
      const int64_t begin_row = part * part_rows_, end_row = std::min(plan_.lattice_rows, begin_row + part_rows_);
      const int64_t source_index = image * call.source_channels + call.source_channel(channel, 0);
      const int64_t filter = call.filter(channel, 0) * call.taps;
      const T* source = call.source + source_index * call.source_plane();
      plane.result = call.result + index * call.result_plane();
      plane.bias = call.bias ? to_acc(call.bias[channel]) : A(0);
      plane.first_strip = 0, plane.last_strip = strips;
      if constexpr (kConverted) {
        plane.weight = filters + filter;
      } else {
        plane.weight = call.weight + filter;
        plane.source = source + plan_.base;
      }
      if (plan_.whole) plane.source = planes + source_index * plane.plane_pitch;
      if (!plane.copied) {
        walk_lattices(plane, begin_row, end_row);
      } else {
        copy_and_walk(plane, source, scratch, begin_row, end_row, strips);
      }
      if (++part < parts_) continue;
      part = 0, ++index;
      if (++channel == call.channels) channel = 0, ++image;
    }
  }

  // Rows [begin, end) of all lattices, as many at a time as the scratch holds.
  void copy_and_walk(NchwPlane<A>& plane, const T* source, A* scratch, int64_t begin, int64_t end,
                     int64_t strips) const {
    for (int64_t row = begin; row < end; row += plan_.band) {
      const int64_t stop = std::min(end, row + plan_.band);
      const Range needed = plan_.source_rows(row, stop);
      plane.plane_pitch = (needed.hi - needed.lo) * plane.pitch;
      plane.source = scratch - needed.lo * plane.pitch;
      for (int64_t strip = 0; strip < strips; strip += plan_.group) {
        plane.first_strip = strip, plane.last_strip = std::min(strips, strip + plan_.group);
        for (int64_t f = 0; f < plane.fan_in; ++f) {
          plan_.copy(source + f * plan_.problem.source_plane(), needed, strip, scratch + f * plane.plane_pitch);
        }
        walk_lattices(plane, row, stop);
      }
    }
  }

  // Rows [begin, end) of all lattices.
  void walk_lattices(const NchwPlane<A>& plane, int64_t begin, int64_t end) const {
    for (int64_t i = 0; i < plan_.rows.count(); ++i) {
      Lattice spare;
      const Lattice& lattice = plan_.rows.at(i, spare);
      if (begin < lattice.count) plane.walk_of(lattice)(plane, lattice, begin, std::min(end, lattice.count));
    }
  }

  static void store_as(void* results, int64_t at, int64_t step, Vec<A> value, const Mask<A>& mask) {
    T* to = static_cast<T*>(results) + at;
    if (step == 1) return store(to, value, mask);
    store_lanes(to, step, value, mask);
  }

  SourceRows<T> plan_;
  int64_t parts_, part_rows_;  // bands of a plane; rows of each lattice in one
  PlaneShape<A> plane_;
  Columns<A> columns_[2];
};

DWCONV_END_TARGET

#endif  // DWCONV_CPU_NCHW_ROWS_H
