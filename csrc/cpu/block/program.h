// Blocks one after the other, each on the input of the call or on what an earlier one has made. What lies between them is in
// one piece of memory, where a result takes the place of those that nothing reads any more.
//
// Where images are large, a few of them go through several blocks before the next few do, so that what lies between these
// blocks stays in the cache:
//
//   block a on images 0 and 1, block b on images 0 and 1, block a on images 2 and 3, block b on images 2 and 3, ...
//
// Sizes alone decide it, and no result depends on it.
#pragma once
#include <vector>

#include "block.h"

namespace dwconv {

// A tensor between blocks, channels last but for the inputs of the call.
struct Value {
  int64_t images;
  Image image;
  Strides strides;
  int64_t elements() const { return images * image.size(); }
};

// A block and what it reads: values are counted from the inputs on, then the blocks in order.
struct Node {
  int64_t source, residual;  // -1: no residual
  std::vector<Step> steps;
  double epsilon;
};

struct ProgramCall {
  std::vector<const void*> inputs;
  const void* const* constants = nullptr;
  std::vector<void*> outputs;
  unsigned char* workspace = nullptr;
};

class Program {
 public:
  // `outputs` are values that blocks make.
  Program(DType dtype, const std::vector<Value>& inputs, const std::vector<Node>& nodes,
          const std::vector<int64_t>& outputs);

  const Value& value(int64_t index) const { return values_[size_t(index)]; }
  int64_t workspace_bytes(int64_t workers) const;
  void run(const ProgramCall& call, const Workers& workers) const;

 private:
  // Nodes [begin, end), which `chunks` parts of the images go through one after the other.
  struct Segment {
    size_t begin, end;
    int64_t chunks, local_bytes;
  };
  // Where a result lies: alive from step `born` to step `last`, and local to a segment or for all images.
  struct Placed {
    int64_t offset, bytes, born, last;
    bool local, output;
  };
  struct Run;

  Segment segment_from(size_t begin) const;
  int64_t traffic(size_t node) const;
  void make_blocks();
  void place();
  static int64_t lay_out(const std::vector<Placed*>& results);
  int64_t images_of(const Segment& segment) const { return values_[size_t(inputs_) + segment.begin].images; }
  int64_t bytes_of_slot(const Segment& segment, int64_t workers) const;
  void run_chunk(const Run& run, const Segment& segment, int64_t chunk, unsigned char* memory,
                 const Workers& workers) const;

  DType dtype_;
  int64_t inputs_;
  std::vector<Node> nodes_;
  std::vector<int64_t> outputs_, constants_;  // of each node the first
  std::vector<Value> values_;
  std::vector<Segment> segments_;
  std::vector<std::shared_ptr<const Block>> blocks_, smaller_;  // for the larger chunks and those of an image less
  std::vector<Placed> placed_;                                  // of each node
  int64_t shared_bytes_ = 0;
};

// The program of these sizes and nodes: the one of an earlier call if there was one not long ago.
std::shared_ptr<const Program> program_of(DType dtype, const std::vector<Value>& inputs, const std::vector<Node>& nodes,
                                          const std::vector<int64_t>& outputs);

}  // namespace dwconv
