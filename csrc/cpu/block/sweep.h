// A sweep: steps that go over the images by bands of rows, so that what lies between two steps is a few rows in the cache.
//
//   rows of the input      rows between steps         rows of the result
//   ~~~~~~~~~~~~~~~~
//   ================       ----------------  kept from the band before
//   ================  ->   ================  ->       ================   a band
//   ================       ================           ================
//   ~~~~~~~~~~~~~~~~
//
// For each band, from the last step back, it is known which rows every step needs (a 3x3 needs one more above and below).
// Rows that the band before has left are moved to the front of their buffer, the others are computed. What bands there are
// depends on sizes alone.
#pragma once
#include <memory>
#include <vector>

#include "rows_copy.h"
#include "step.h"
#include "workers.h"

namespace dwconv {

// What a sweep reads and writes. Sums are of each channel over the pixels of a unit, in the accumulator's type.
struct SweepCall {
  const void* input = nullptr;
  const void* const* constants = nullptr;  // of its steps
  const void* residual = nullptr;          // for the last step
  const void* scale = nullptr;             // (images, channels of the input): the first step multiplies with it
  void* result = nullptr;                  // null where only the sums are wanted
  void* sums = nullptr;                    // (units, channels of the result), or null
  Coming next;                             // after it
};

// What sizes decide about a sweep. It does not change, and any threads may run it at the same time.
class Sweep {
 public:
  struct Options {
    bool scales;  // the first step is channel_scale
    bool sums;    // of the result
    bool stores;  // the result
  };
  Sweep(DType dtype, int64_t images, const Image& input, const Strides& strides, const std::vector<Step>& steps,
        double epsilon, const Options& options);

  const Image& result() const { return nodes_.back(); }
  int64_t bands() const { return bands_; }
  // A unit is a band of an image. Units may be computed by any threads in any order.
  int64_t units() const { return images_ * bands_; }
  double work() const { return double(images_) * work_; }
  // The weights that it reads first, or `otherwise` if it has none.
  Coming first(const void* const* constants, const Coming& otherwise) const {
    return weights_from(0, constants, otherwise);
  }

  // Memory that a thread needs for itself.
  int64_t bytes_of_slot() const { return slot_bytes_; }

  // Units [begin, end). With `workers` kernels share their items among them, and else run on this thread alone.
  void run(const SweepCall& call, unsigned char* slot, int64_t begin, int64_t end, const Workers* workers) const;

 private:
  struct Span {
    int64_t begin, end;
    int64_t size() const { return end - begin; }
  };
  using Spans = std::vector<Span>;  // of each node

  // A kernel and its plan for bands of some height.
  struct Planned {
    int64_t rows, results, pad_top;
    const Kernel* kernel;
    Plan plan;
  };

  // A kernel's operation or a copy of rows, for a whole image.
  struct RowStep {
    bool copies;
    RowsCopy copy;
    Operation operation;
    Shape shape;
    Activation activation;
    int64_t constant;  // the first of its constants, or -1
    std::vector<std::unique_ptr<Planned>> plans;
  };

  Coming weights_from(size_t step, const void* const* constants, const Coming& otherwise) const;
  void add(const Step& step);
  void add_copy(const Strides& from, const Step& borders);
  RowStep same(Operation operation) const;
  void cut_into_bands();
  void make_plans();

  Spans needed(int64_t band) const;
  Span rows_for(size_t step, const Span& results) const;
  Span computed(size_t step, const Spans& need, const Spans* kept) const;
  Shape shape_for(const RowStep& step, const Span& rows, const Span& results) const;
  int64_t plan(RowStep& step, const Shape& shape);
  void compute(const RowStep& step, const Shape& shape, Buffers buffers, const SweepCall& call, int64_t image,
               const Workers* workers) const;
  int64_t row_bytes(size_t node) const { return nodes_[node].row() * element_bytes(dtype_); }

  DType dtype_;
  int64_t images_;
  double epsilon_;
  Options options_;
  Strides strides_;
  std::vector<Image> nodes_;  // the input, and what each step makes of it
  std::vector<RowStep> steps_;
  std::vector<RowStep> summing_;  // one, if there are sums
  int64_t constants_ = 0, bands_ = 1;
  std::vector<int64_t> buffers_;  // of each node between two steps, its offset in a slot
  int64_t slot_bytes_ = 0, workspace_at_ = 0;
  double work_ = 0;
};

}  // namespace dwconv
