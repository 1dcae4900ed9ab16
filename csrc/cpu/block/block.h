// A block on pointers: sweeps over the images, with what needs a whole plane (means, squeeze-and-excite) between them.
#pragma once
#include <vector>

#include "sweep.h"

namespace dwconv {

struct BlockCall {
  const void* input = nullptr;
  const void* const* constants = nullptr;
  const void* residual = nullptr;
  void* result = nullptr;
  unsigned char* workspace = nullptr;
  Coming next;  // after it
};

// What sizes decide about a block. It does not change: it is made once, and any threads may run it at the same time.
class Block {
 public:
  Block(DType dtype, int64_t images, const Image& input, const Strides& strides, const std::vector<Step>& steps,
        double epsilon);

  const Image& result() const { return result_; }
  int64_t workspace_bytes(int64_t workers) const;
  void run(const BlockCall& call, const Workers& workers) const;
  // The weights that it reads first, or `otherwise` if it has none.
  Coming first(const void* const* constants, const Coming& otherwise) const { return first(0, constants, otherwise); }

 private:
  // A sweep, and what is made of the means of its result.
  struct Part {
    Sweep sweep;
    int64_t constants = 0;  // of its steps, the first
    int64_t behind = -1;    // the step behind it, squeeze_excite or mean; -1: it is the last
    int64_t excites = 0;    // of that step, the first constant
    bool forwards = false;  // it stores nothing: the next sweep reads what it has read
    // Where in the workspace these lie; -1: they are the block's result, or do not exist.
    int64_t result = -1, sums = -1, means = -1, hidden = -1, gates = -1, scale = -1;
  };

  int64_t reserve(int64_t bytes);
  Coming first(size_t part, const void* const* constants, const Coming& otherwise) const;
  Coming behind(size_t part, const void* const* constants, const Coming& otherwise) const;
  void sweep(const Part& part, const SweepCall& call, unsigned char* slots, const Workers& workers) const;
  void excite(const Part& part, const void* const* constants, unsigned char* memory, const Workers& workers) const;

  DType dtype_;
  int64_t images_;
  std::vector<Step> steps_;
  std::vector<Part> parts_;
  Image result_;
  int64_t shared_bytes_ = 0, slot_bytes_ = 0;
};

// The block of these sizes: the one of an earlier call if there was one not long ago.
std::shared_ptr<const Block> block_of(DType dtype, int64_t images, const Image& input, const Strides& strides,
                                      const std::vector<Step>& steps, double epsilon);

}  // namespace dwconv
