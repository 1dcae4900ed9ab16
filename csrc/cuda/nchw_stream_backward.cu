#include "nchw_stream_backward.cuh"

#include "variants.h"

namespace dwconv::cuda {
namespace {

constexpr Kernel list[] = {
    DWCONV_CUDA_FLOATS(backward, nchw, k3s1, NchwStreamBackward, 3),
    DWCONV_CUDA_FLOATS(backward, nchw, k5s1, NchwStreamBackward, 5),
};

}  // namespace

KernelList nchw_stream_backward_kernels() { return {std::begin(list), std::end(list)}; }

}  // namespace dwconv::cuda
