// Division by a number that the host knows, as a multiplication: a 64-bit division on the device costs a hundred
// instructions and a stack.
#pragma once
#include "device.cuh"

namespace dwconv::cuda {

// With s = ceil(log2(d)) and magic = floor(2^(63+s) / d) + 1, n / d = (n * magic) >> (63 + s) for 0 <= n < 2^63: magic
// exceeds 2^(63+s) / d by at most 1, so the product is too large by at most n < 2^63 <= 2^(63+s) / d.
class Divisor {
 public:
  Divisor() = default;
  explicit Divisor(int64_t divisor) {
    while ((int64_t(1) << shift_) < divisor) ++shift_;
    if (shift_ > 0) magic_ = uint64_t((static_cast<unsigned __int128>(1) << (63 + shift_)) / uint64_t(divisor)) + 1;
  }
  // 0 <= n. A divisor of zero belongs to an empty problem and is never used.
  __device__ __forceinline__ int64_t divide(int64_t n) const {
    return shift_ == 0 ? n : int64_t(__umul64hi(uint64_t(n), magic_) >> (shift_ - 1));
  }

 private:
  uint64_t magic_ = 0;
  int shift_ = 0;
};

}  // namespace dwconv::cuda
