// What a library tells Python's ctypes of its registry, as plain C functions: no tensors, no Python symbols.
//
// Each library exports, with kernels in the order of their registry, best first:
//   dwconv_kernel_count()
//   dwconv_kernel_field(index, field)           field: 0 name, 1 operation, 2 dtype, 3 layout, 4 isa; null for another
//   dwconv_kernel_refusal(index, numbers, ...)  why it does not run: it cannot compute the shape, or another one is
//                                               preferred; null if it runs, unless a better one does
#pragma once
#include <cstddef>

#include "../names.h"

#define DWCONV_EXPORT extern "C" __attribute__((visibility("default")))

namespace dwconv {

template <class AnyKernel>
const char* field_of(const AnyKernel& kernel, const char* isa, int64_t field) {
  switch (field) {
    case 0: return kernel.name;
    case 1: return name(kernel.operation);
    case 2: return name(kernel.dtype);
    case 3: return name(kernel.layout);
    case 4: return isa;
    default: return nullptr;
  }
}

// The numbers come in the order of struct Shape.
inline Shape shape_of(const int64_t* numbers) {
  static_assert(sizeof(Shape) == 15 * sizeof(int64_t) && offsetof(Shape, pad_left) == 14 * sizeof(int64_t),
                "callers pass the fields of Shape as 15 numbers");
  return {numbers[0], numbers[1], numbers[2],  numbers[3],  numbers[4],  numbers[5],  numbers[6], numbers[7],
          numbers[8], numbers[9], numbers[10], numbers[11], numbers[12], numbers[13], numbers[14]};
}

}  // namespace dwconv
