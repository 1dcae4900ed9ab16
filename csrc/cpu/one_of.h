// A part of a plan that is one of several classes: the shape decides which, when the plan is made.
#pragma once
#include <cstdint>
#include <new>
#include <type_traits>

namespace dwconv {

// Call is what a part needs besides: the operands.
template <class Call, int64_t bytes>
class OneOf {
 public:
  template <class Part, class... Arguments>
  void make(const Arguments&... arguments) {
    static_assert(sizeof(Part) <= bytes && alignof(Part) <= 64 && std::is_trivially_destructible_v<Part>);
    new (part_) Part(arguments...);
    run_ = Part::run;
  }

  // Part::run(part, call, begin, end)
  void run(const Call& call, int64_t begin, int64_t end) const { run_(part_, call, begin, end); }

 private:
  alignas(64) unsigned char part_[bytes];
  void (*run_)(const void* part, const Call&, int64_t begin, int64_t end);
};

}  // namespace dwconv
