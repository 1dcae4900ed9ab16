// Fibers: stacks that take turns on one thread, with what the sanitizers must be told about it.
#pragma once
#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <new>

#if !defined(__x86_64__)
#error "the switch between fibers is written for x86-64"
#endif

#if defined(__SANITIZE_ADDRESS__) || defined(EMULATOR_ASAN)
#include <sanitizer/common_interface_defs.h>
#define EMULATOR_ASAN 1
#endif
#ifdef EMULATOR_TSAN
// This file and emulator.cpp are not instrumented: they order fibers by these calls alone.
extern "C" {
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void*);
void __tsan_switch_to_fiber(void*, unsigned flags);
void __tsan_acquire(void*);
void __tsan_release(void*);
}
#endif

namespace emulator {

inline void order_after(void* address) {
#ifdef EMULATOR_TSAN
  __tsan_acquire(address);
#endif
  (void)address;
}
inline void order_before(void* address) {
#ifdef EMULATOR_TSAN
  __tsan_release(address);
#endif
  (void)address;
}

// Saves the callee-saved registers on the stack and the stack pointer in *from, and continues at `to`.
extern "C" void emulator_switch(void** from, void* to);

class Fiber {
 public:
  static constexpr size_t kStack = 128 * 1024;

  Fiber() {
    void* mapped = mmap(nullptr, kStack + kGuard, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (mapped == MAP_FAILED || mprotect(mapped, kGuard, PROT_NONE) != 0) throw std::bad_alloc();
    memory_ = static_cast<char*>(mapped);
#ifdef EMULATOR_TSAN
    tsan_ = __tsan_create_fiber(0);
#endif
  }
  Fiber(const Fiber&) = delete;
  ~Fiber() {
#ifdef EMULATOR_TSAN
    __tsan_destroy_fiber(tsan_);
#endif
    munmap(memory_, kStack + kGuard);
  }

  // The next resume() calls entry, which must not return.
  void start(void (*entry)()) {
    auto** top = reinterpret_cast<void**>(memory_ + kGuard + kStack);
    *--top = nullptr;  // entry finds the stack as a call leaves it: 8 bytes past a multiple of 16
    *--top = reinterpret_cast<void*>(entry);
    for (int i = 0; i < 6; ++i) *--top = nullptr;
    stack_pointer_ = top;
  }

  // From the scheduler into the fiber, until it calls suspend().
  void resume() {
#ifdef EMULATOR_TSAN
    scheduler_tsan_ = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(tsan_, /*no synchronisation*/ 1);
#endif
#ifdef EMULATOR_ASAN
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, memory_ + kGuard, kStack);
#endif
    emulator_switch(&scheduler_, stack_pointer_);
#ifdef EMULATOR_ASAN
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
  }

  // First thing in entry.
  void entered() {
#ifdef EMULATOR_ASAN
    __sanitizer_finish_switch_fiber(nullptr, &scheduler_bottom_, &scheduler_size_);
#endif
  }

  // From the fiber back into the scheduler.
  void suspend() {
#ifdef EMULATOR_TSAN
    __tsan_switch_to_fiber(scheduler_tsan_, 1);
#endif
#ifdef EMULATOR_ASAN
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, scheduler_bottom_, scheduler_size_);
#endif
    emulator_switch(&stack_pointer_, scheduler_);
#ifdef EMULATOR_ASAN
    __sanitizer_finish_switch_fiber(fake, &scheduler_bottom_, &scheduler_size_);
#endif
  }

 private:
  static constexpr size_t kGuard = 4096;
  char* memory_ = nullptr;
  void* stack_pointer_ = nullptr;
  void* scheduler_ = nullptr;
#ifdef EMULATOR_TSAN
  void* tsan_ = nullptr;
  void* scheduler_tsan_ = nullptr;
#endif
#ifdef EMULATOR_ASAN
  const void* scheduler_bottom_ = nullptr;
  size_t scheduler_size_ = 0;
#endif
};

}  // namespace emulator
