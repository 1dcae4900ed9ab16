#include "emulator.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "fiber.h"

asm(R"(
.text
.globl emulator_switch
.type emulator_switch, @function
emulator_switch:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
.size emulator_switch, .-emulator_switch
)");

namespace emulator {

dim3 thread_index, block_index, block_size, grid_size;
bool watching = false;

namespace {

// What every device from 7.5 on takes.
constexpr unsigned kMaxThreads = 1024, kMaxBlockZ = 64, kMaxGridYZ = 65535, kWarp = 32;
constexpr uint64_t kMaxGridX = (uint64_t(1) << 31) - 1;
constexpr size_t kMaxShared = 64 * 1024;
// Sets of fibers that blocks take in turn: ThreadSanitizer sees a race between blocks only where they are different
// fibers. One set, and fewer pages to touch, where nobody looks.
#ifdef EMULATOR_TSAN
constexpr int kSets = 2;
#else
constexpr int kSets = 1;
#endif

enum class State { ready, at_barrier, in_warp, done };

struct AsyncCopy {
  void* destination;
  const void* source;
  unsigned group;
};

struct Thread {
  Fiber* fiber;
  dim3 index;
  unsigned linear = 0;
  State state = State::done;
  bool fenced = false;
  void* atomic = nullptr;             // the last that was read
  std::array<AsyncCopy, 256> copies;  // under way, from first_copy on, in order
  size_t first_copy = 0, copies_end = 0;
  unsigned group = 0;  // that the next one belongs to
};

struct Warp {
  unsigned arrived = 0, mask = 0, generation = 0;
  uint64_t values[2][kWarp];  // by parity of the generation: the next exchange must not overwrite what is being read
  char order[2];              // addresses for ThreadSanitizer
};

// Shared memory of the size asked for, flush against a page that cannot be touched; a block of its own for each block
// of the grid where a sanitizer watches, so that no two are taken for one.
class SharedMemory {
 public:
  void* fresh(size_t bytes) {
#if defined(EMULATOR_TSAN) || defined(EMULATOR_ASAN)
    char* data = static_cast<char*>(std::malloc(std::max<size_t>(bytes, 1)));
    blocks_.emplace_back(data, std::free);
#else
    if (!pages_) {
      pages_ = static_cast<char*>(
          mmap(nullptr, kMaxShared + kGuard, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
      if (pages_ == MAP_FAILED || mprotect(pages_ + kMaxShared, kGuard, PROT_NONE) != 0) throw std::bad_alloc();
    }
    char* data = pages_ + kMaxShared - (bytes + 15) / 16 * 16;
#endif
    std::memset(data, 0xff, bytes);  // NaN in every dtype
    return data;
  }
  void release() { blocks_.clear(); }

 private:
  static constexpr size_t kGuard = 1 << 20;
  char* pages_ = nullptr;
  std::vector<std::unique_ptr<char, void (*)(void*)>> blocks_;
};

std::vector<std::unique_ptr<Fiber>> fibers[kSets];
std::vector<Thread> threads;
std::vector<Warp> warps;
SharedMemory shared;
void* shared_data;
Thread* current;
unsigned at_barrier, barrier_generation;
char barrier_order[2], launch_begin, launch_end;
void (*body_)(void*);
void* context_;
std::string error;
Order order_ = Order::ascending;
std::mt19937_64 random_;
bool progress;
std::vector<Watched> memory_;

[[noreturn]] void give_up() {
  current->state = State::done;
  current->fiber->suspend();
  __builtin_unreachable();
}

[[noreturn]] void fail(std::string message) {
  if (error.empty()) error = std::move(message);
  give_up();
}

void entry() {
  current->fiber->entered();
  order_after(&launch_begin);
  body_(context_);
  order_before(&launch_end);
  current->state = State::done;
  current->fiber->suspend();
  __builtin_unreachable();
}

void enter(Thread& thread) {
  current = &thread;
  thread_index = thread.index;
  thread.fiber->resume();
}

// Until the others of the warp in the mask have come here too. Returns the number of the meeting.
unsigned meet(unsigned mask, const char* what) {
  Thread& self = *current;
  Warp& warp = warps[self.linear / kWarp];
  const unsigned bit = 1u << (self.linear % kWarp), generation = warp.generation;
  if (!(mask & bit)) fail(std::string(what) + " by a lane that is not in its own mask");
  if (warp.arrived && warp.mask != mask) fail(std::string(what) + " with different masks in one warp");
  warp.mask = mask;
  warp.arrived |= bit;
  progress = true;
  if (warp.arrived == mask) {
    warp.arrived = 0;
    ++warp.generation;
    for (unsigned lane = 0; lane < kWarp; ++lane) {
      const unsigned linear = self.linear / kWarp * kWarp + lane;
      if ((mask >> lane & 1) && linear != self.linear) threads[linear].state = State::ready;
    }
  } else {
    self.state = State::in_warp;
    self.fiber->suspend();
  }
  return generation;
}

std::string stuck() {
  unsigned waiting = 0, in_warp = 0, done = 0;
  for (const Thread& thread : threads) {
    waiting += thread.state == State::at_barrier;
    in_warp += thread.state == State::in_warp;
    done += thread.state == State::done;
  }
  return "divergent barrier: of " + std::to_string(threads.size()) + " threads " + std::to_string(waiting) +
         " wait at __syncthreads, " + std::to_string(in_warp) + " in a warp, and " + std::to_string(done) +
         " have returned";
}

void run_block(dim3 index, size_t shared_bytes, int set) {
  block_index = index;
  shared_data = shared.fresh(shared_bytes);
  order_before(&launch_begin);  // the scheduler knows of no fiber's work here, so this orders no blocks
  at_barrier = 0;
  for (Warp& warp : warps) warp.arrived = 0;
  std::vector<unsigned> order(threads.size());
  std::iota(order.begin(), order.end(), 0u);
  if (order_ == Order::descending) std::reverse(order.begin(), order.end());
  for (size_t i = 0; i < threads.size(); ++i) {
    Thread& thread = threads[i];
    thread.fiber = fibers[set][i].get();
    thread.state = State::ready;
    thread.fenced = false;
    thread.atomic = nullptr;
    thread.first_copy = thread.copies_end = thread.group = 0;
  }
  bool first_turns = true;
  for (size_t done = 0; done < threads.size() && error.empty();) {
    if (order_ == Order::random) std::shuffle(order.begin(), order.end(), random_);
    progress = false;
    for (size_t turn = 0; turn < order.size(); ++turn) {
      Thread& thread = threads[order[turn]];
      if (thread.state != State::ready) continue;
      if (first_turns) thread.fiber->start(entry);
      enter(thread);
      if (!error.empty()) return;
      if (thread.state == State::done) {
        ++done;
        progress = true;
        // Most threads never wait: the next one gets the stack that is still in the cache.
        if (kSets == 1 && first_turns && turn + 1 < order.size()) {
          std::swap(threads[order[turn + 1]].fiber, thread.fiber);
        }
      }
    }
    first_turns = false;
    if (!progress && done < threads.size()) error = stuck();
  }
}

std::string invalid(dim3 grid, dim3 block, size_t shared_bytes) {
  const auto text = [](dim3 d) {
    return std::to_string(d.x) + " x " + std::to_string(d.y) + " x " + std::to_string(d.z);
  };
  const uint64_t per_block = uint64_t(block.x) * block.y * block.z;
  if (per_block == 0 || per_block > kMaxThreads || block.z > kMaxBlockZ) return "invalid block of " + text(block);
  if (!grid.x || !grid.y || !grid.z || grid.x > kMaxGridX || grid.y > kMaxGridYZ || grid.z > kMaxGridYZ) {
    return "invalid grid of " + text(grid);
  }
  if (shared_bytes > kMaxShared) return "too much shared memory: " + std::to_string(shared_bytes) + " bytes";
  return "";
}

dim3 block_at(uint64_t i, dim3 grid) {
  return dim3(unsigned(i % grid.x), unsigned(i / grid.x % grid.y), unsigned(i / grid.x / grid.y));
}

}  // namespace

void set_order(Order order, uint64_t seed) {
  order_ = order;
  random_.seed(seed);
}

void* shared_memory() { return shared_data; }
unsigned lane() { return current->linear % kWarp; }

void block_barrier() {
  const unsigned generation = barrier_generation;
  order_before(&barrier_order[generation % 2]);
  progress = true;
  if (++at_barrier == threads.size()) {
    at_barrier = 0;
    ++barrier_generation;
    for (Thread& thread : threads) {
      if (thread.state == State::at_barrier) thread.state = State::ready;
    }
  } else {
    current->state = State::at_barrier;
    current->fiber->suspend();
  }
  order_after(&barrier_order[generation % 2]);
}

void warp_barrier(unsigned mask) {
  Warp& warp = warps[current->linear / kWarp];
  order_before(&warp.order[warp.generation % 2]);
  const unsigned generation = meet(mask, "__syncwarp");
  order_after(&warp.order[generation % 2]);
}

uint64_t exchange(unsigned mask, uint64_t value, unsigned source) {
  Warp& warp = warps[current->linear / kWarp];
  warp.values[warp.generation % 2][lane()] = value;
  if (!(mask >> source & 1)) fail("a shuffle from a lane that is not in the mask");
  return warp.values[meet(mask, "a shuffle") % 2][source];
}

unsigned ballot(unsigned mask, bool predicate) {
  Warp& warp = warps[current->linear / kWarp];
  warp.values[warp.generation % 2][lane()] = predicate;
  const unsigned generation = meet(mask, "__ballot_sync");
  unsigned bits = 0;
  for (unsigned i = 0; i < kWarp; ++i) bits |= (mask >> i & 1) && warp.values[generation % 2][i] ? 1u << i : 0u;
  return bits;
}

// What the thread wrote before is visible to who reads one of its later atomics and fences too.
void fence() {
  current->fenced = true;
  if (current->atomic) order_after(current->atomic);
}

unsigned atomic_add(unsigned* address, unsigned value) {
  if (current->fenced) order_before(address);
  current->atomic = address;
  return __atomic_fetch_add(address, value, __ATOMIC_RELAXED);
}

float atomic_add(float* address, float value) {
  if (current->fenced) order_before(address);
  current->atomic = address;
  const float before = *address;
  *address = before + value;
  return before;
}

void async_copy(void* destination, const void* source) {
  check_aligned(destination, 16);
  check_aligned(source, 16);
  if (current->first_copy == current->copies_end) current->first_copy = current->copies_end = 0;
  if (current->copies_end == current->copies.size()) fail("more asynchronous copies under way than the emulator keeps");
  current->copies[current->copies_end++] = {destination, source, current->group};
}

void misaligned(size_t bytes) { fail("an access to " + std::to_string(bytes) + " bytes at no multiple of them"); }

void watched(const void* address, size_t bytes) {
  for (Watched& each : memory_) {
    const uintptr_t from = reinterpret_cast<uintptr_t>(address) - reinterpret_cast<uintptr_t>(each.begin);
    if (from < each.bytes) each.widest = std::max(each.widest, bytes);
  }
}

void watch(std::vector<Watched> memory) {
  memory_ = std::move(memory);
  watching = true;
}

std::vector<Watched> stop_watching() {
  watching = false;
  return std::move(memory_);
}

void async_commit() { ++current->group; }

bool async_next(int groups_left, void** destination, const void** source) {
  if (current->first_copy == current->copies_end) return false;
  const AsyncCopy& copy = current->copies[current->first_copy];
  if (copy.group + unsigned(groups_left) >= current->group) return false;
  *destination = copy.destination;
  *source = copy.source;
  ++current->first_copy;
  return true;
}

const char* run(dim3 grid, dim3 block, size_t shared_bytes, void (*body)(void*), void* context) {
  error = invalid(grid, block, shared_bytes);
  if (!error.empty()) return error.c_str();
  const size_t count = size_t(block.x) * block.y * block.z;
  for (auto& set : fibers) {
    while (set.size() < count) set.push_back(std::make_unique<Fiber>());
  }
  threads.resize(count);
  warps.resize((count + kWarp - 1) / kWarp);
  for (unsigned i = 0; i < count; ++i) {
    threads[i].linear = i;
    threads[i].index = block_at(i, block);
  }
  grid_size = grid, block_size = block, body_ = body, context_ = context;
  const uint64_t blocks = uint64_t(grid.x) * grid.y * grid.z;
  const uint64_t first = order_ == Order::random ? random_() % blocks : 0;
  for (uint64_t i = 0; i < blocks && error.empty(); ++i) {
    const uint64_t turn = order_ == Order::descending ? blocks - 1 - i : (first + i) % blocks;
    run_block(block_at(turn, grid), shared_bytes, int(i % kSets));
  }
  order_after(&launch_end);
  shared.release();
  return error.empty() ? nullptr : error.c_str();
}

}  // namespace emulator
