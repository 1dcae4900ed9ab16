// Memory for the length of a call, which the next call finds again: in huge pages, since a block reads and writes it from
// end to end many times, and every page of 4 KB would be looked up anew. MobileNetV2 gained 5 % by it.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <optional>

#include "pages.h"
#include "tensors.h"

namespace dwconv {
namespace {

class Scratch {
 public:
  Scratch(const Tensor& like, int64_t bytes)
      : bytes_((std::max<int64_t>(bytes, 1) + kHugePage - 1) / kHugePage * kHugePage) {
    if (bytes > kMost) {
      tensor_ = allocate_workspace(like, bytes);
      return;
    }
    block_ = take(bytes_);
    if (block_.memory) return;
    block_ = {std::aligned_alloc(kHugePage, size_t(bytes_)), bytes_};
    STD_TORCH_CHECK(block_.memory, "torch_dwconv: no memory for a workspace of ", bytes, " bytes");
    use_huge_pages(block_.memory, bytes_);
  }
  ~Scratch() {
    if (!tensor_) give_back(block_);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  unsigned char* memory() const {
    return static_cast<unsigned char*>(tensor_ ? tensor_->mutable_data_ptr() : block_.memory);
  }

 private:
  struct Block {
    void* memory = nullptr;
    int64_t bytes = 0;
  };
  static constexpr int64_t kMost = 16 * kHugePage;
  static constexpr int kKept = 4;

  // Blocks that no call uses: as many threads as call at the same time have one each.
  struct Pool {
    std::mutex mutex;
    Block blocks[kKept];
  };
  static Pool& pool() {
    static Pool* pool = new Pool;  // never destroyed: threads may outlive static objects
    return *pool;
  }

  // The smallest that is large enough, or none.
  static Block take(int64_t bytes) {
    Pool& all = pool();
    const std::lock_guard<std::mutex> lock(all.mutex);
    Block* best = nullptr;
    for (Block& block : all.blocks) {
      if (block.memory && block.bytes >= bytes && (!best || block.bytes < best->bytes)) best = &block;
    }
    const Block taken = best ? *best : Block();
    if (best) *best = {};
    return taken;
  }

  // In the place of the smallest, if that is smaller.
  static void give_back(Block block) {
    {
      Pool& all = pool();
      const std::lock_guard<std::mutex> lock(all.mutex);
      Block* least = all.blocks;
      for (Block& each : all.blocks) {
        if (each.bytes < least->bytes) least = &each;
      }
      if (least->bytes < block.bytes) std::swap(*least, block);
    }
    std::free(block.memory);
  }

  int64_t bytes_;
  Block block_;
  std::optional<Tensor> tensor_;
};

}  // namespace
}  // namespace dwconv
