// A buffer between unreadable pages.
#pragma once
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <optional>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#elif defined(DWCONV_MEMCHECK)  // built to run under valgrind
#include <valgrind/memcheck.h>
#endif

namespace dwconv::test {

// What a tool that watches memory is told about bytes that lie on accessible pages.
inline void forbid(const uint8_t* p, ptrdiff_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
  ASAN_POISON_MEMORY_REGION(p, size_t(bytes));
#elif defined(DWCONV_MEMCHECK)
  VALGRIND_MAKE_MEM_NOACCESS(p, bytes);
#endif
  (void)p, (void)bytes;
}

inline void allow(const uint8_t* p, ptrdiff_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
  ASAN_UNPOISON_MEMORY_REGION(p, size_t(bytes));
#elif defined(DWCONV_MEMCHECK)
  VALGRIND_MAKE_MEM_DEFINED(p, bytes);
#endif
  (void)p, (void)bytes;
}

// Bytes that may be written, and read after that.
inline void expect_writes(const uint8_t* p, ptrdiff_t bytes) {
#if defined(DWCONV_MEMCHECK)
  VALGRIND_MAKE_MEM_UNDEFINED(p, bytes);
#endif
  (void)p, (void)bytes;
}

// Reports what is not made of defined bytes only.
inline void expect_defined(const uint8_t* p, ptrdiff_t bytes) {
#if defined(DWCONV_MEMCHECK)
  VALGRIND_CHECK_MEM_IS_DEFINED(p, bytes);
#endif
  (void)p, (void)bytes;
}

// Where the data lies between the two guards:
//   front   flush against the guard before it, so aligned to a page
//   back    flush against the guard after it, so aligned to whatever its size leaves
//   inside  one element past a multiple of 64 bytes, never aligned to a vector, with margins on both sides
enum class Placement { front, back, inside };

// `bytes` bytes of data, filled with 0xff: a NaN in every dtype. What is left of its pages, the margins, is filled with
// the byte `margin`; before and after them lies memory that cannot be touched.
class Guarded {
 public:
  Guarded(size_t bytes, size_t element, Placement placement, uint8_t margin) : bytes_(bytes), margin_(margin) {
    const size_t page = size_t(sysconf(_SC_PAGESIZE));
    const size_t before = placement == Placement::inside ? 64 + element : 0;
    const size_t after = placement == Placement::inside ? 64 : 0;
    pages_bytes_ = (before + bytes + after + page - 1) / page * page;
    mapped_bytes_ = pages_bytes_ + 2 * kGuard;
    void* mapped = mmap(nullptr, mapped_bytes_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED) throw std::bad_alloc();
    pages_ = static_cast<uint8_t*>(mapped) + kGuard;
    protect(PROT_READ | PROT_WRITE);
    data_ = placement == Placement::back ? pages_ + pages_bytes_ - bytes : pages_ + before;
    std::memset(pages_, margin, pages_bytes_);
    std::memset(data_, 0xff, bytes);
    expect_writes(data_, end() - data_);
    forbid(pages_, data_ - pages_);
    forbid(end(), pages_ + pages_bytes_ - end());
  }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;
  ~Guarded() {
    allow(pages_, ptrdiff_t(pages_bytes_));
    munmap(pages_ - kGuard, mapped_bytes_);
  }

  uint8_t* data() const { return data_; }
  const uint8_t* end() const { return data_ + bytes_; }
  size_t size() const { return bytes_; }

  // Makes the data read-only, as operands are for a kernel.
  void seal() { protect(PROT_READ); }

  // The first byte of the margins that has changed, counted from the start of the data.
  std::optional<ptrdiff_t> damage() const {
    const auto before = changed(pages_, data_);
    return before ? before : changed(end(), pages_ + pages_bytes_);
  }

  // Whether the address is in the data, the margins or the guards.
  bool owns(const void* address) const {
    const auto* p = static_cast<const uint8_t*>(address);
    return pages_ - kGuard <= p && p < pages_ + pages_bytes_ + kGuard;
  }

 private:
  // Wide enough for a stray access that is off by a row or a small plane, not only by an element.
  static constexpr size_t kGuard = size_t(1) << 20;

  std::optional<ptrdiff_t> changed(const uint8_t* from, const uint8_t* to) const {
    allow(from, to - from);
    const uint8_t* p = from;
    while (p < to && *p == margin_) ++p;
    forbid(from, to - from);
    return p < to ? std::optional<ptrdiff_t>(p - data_) : std::nullopt;
  }

  void protect(int access) {
    if (pages_bytes_ && mprotect(pages_, pages_bytes_, access) != 0) throw std::bad_alloc();
  }

  size_t bytes_, pages_bytes_, mapped_bytes_;
  uint8_t* pages_;
  uint8_t* data_;
  uint8_t margin_;
};

}  // namespace dwconv::test
