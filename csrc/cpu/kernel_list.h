// How a family lists its kernels. A body is a class template on the dtype. An object of it is the plan of a call:
//
//   static const char* supports(Operation, const Shape&)     nullptr, or why it cannot compute the shape
//   Body(Operation, const Shape&)                            everything that the shape alone decides
//   int64_t workspace_bytes() const
//   static constexpr Stage<Body> stages[]                    {{&Body::items, &Body::run}, ...}, at most Plan::kMaxStages
//
// One line, DWCONV_KERNELS, lists it for all four dtypes. Within an operation and a layout the better ones come first.
#if defined(DWCONV_CPU_KERNEL_LIST_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_KERNEL_LIST_H
#undef DWCONV_CPU_KERNEL_LIST_H
#else
#define DWCONV_CPU_KERNEL_LIST_H
#endif

#include "../kernel.h"
#include "simd/vec.h"

DWCONV_BEGIN_TARGET

// A step of a kernel: how many items it has, and what computes items [begin, end).
template <class Body>
struct Stage {
  int64_t (Body::*items)() const;
  void (Body::*run)(const Buffers&, int64_t begin, int64_t end) const;
};

// The functions of a kernel, around a body.
template <class Body, Operation operation>
struct Entry {
  static_assert(sizeof(Body) <= Plan::kStateBytes && alignof(Body) <= 64, "a plan has no room for it");
  static_assert(std::is_trivially_destructible_v<Body>, "nobody destroys a plan");

  static const char* supports(const Shape& shape) { return Body::supports(operation, shape); }

  static void make_plan(const Shape& shape, Plan& plan) {
    const Body* body = new (plan.state) Body(operation, shape);
    plan.workspace_bytes = body->workspace_bytes();
    int64_t* items = plan.items;
    for (const Stage<Body>& stage : Body::stages) *items++ = (body->*stage.items)();
  }

  template <size_t i>
  static void run(const Plan& plan, const Buffers& buffers, int64_t begin, int64_t end) {
    const Body* body = std::launder(reinterpret_cast<const Body*>(plan.state));
    (body->*Body::stages[i].run)(buffers, begin, end);
  }

  template <size_t... i>
  static constexpr Kernel kernel(const char* name, const char* method, DType dtype, Layout layout, int lanes,
                                 std::index_sequence<i...>) {
    return {name, method, operation, dtype, layout, Isa::DWCONV_ISA, lanes, supports, make_plan, {run<i>...}};
  }
};

template <class Body, Operation operation, class T>
static constexpr Kernel make_kernel(const char* name, const char* method, DType dtype, Layout layout) {
  return Entry<Body, operation>::kernel(name, method, dtype, layout, kLanes<Acc<T>>,
                                        std::make_index_sequence<std::size(Body::stages)>{});
}

#ifndef DWCONV_KERNELS
#define DWCONV_STRING_(x) #x
#define DWCONV_STRING(x) DWCONV_STRING_(x)
#define DWCONV_KERNEL(operation, layout, method, Body, dtype, type)                                 \
  make_kernel<Body<type>, Operation::operation, type>(#operation "_" #layout "_" #dtype "_" #method \
                                                                 "_" DWCONV_STRING(DWCONV_ISA),     \
                                                      #method, DType::dtype, Layout::layout)
// -D'DWCONV_DTYPES(kernel,...)=kernel(__VA_ARGS__,f32,float)' compiles for one dtype alone.
#ifndef DWCONV_DTYPES
#define DWCONV_DTYPES(kernel, ...)                                                                    \
  kernel(__VA_ARGS__, f32, float), kernel(__VA_ARGS__, f64, double), kernel(__VA_ARGS__, bf16, bf16), \
      kernel(__VA_ARGS__, f16, f16)
#endif
#define DWCONV_KERNELS(operation, layout, method, Body) DWCONV_DTYPES(DWCONV_KERNEL, operation, layout, method, Body)
#endif

DWCONV_END_TARGET

#endif  // DWCONV_CPU_KERNEL_LIST_H
