// The kernels of this family, best first.
#include "../kernel_list.h"
#include "choice.h"
#include "tiles.cuh"
#include "toeplitz.cuh"

namespace dwconv::cuda {
namespace {

constexpr Kernel list[] = {
    DWCONV_CUDA_HALVES(forward, nchw, toeplitz, "", NchwToeplitz, Operation::forward),
    DWCONV_CUDA_HALVES(grad_input, nchw, toeplitz, "", NchwToeplitz, Operation::grad_input),
    DWCONV_CUDA_FLOATS(forward, nchw, tiles, "", NchwTiles, Operation::forward),
    DWCONV_CUDA_FLOATS(grad_input, nchw, tiles, "", NchwTiles, Operation::grad_input),
};

}  // namespace

Family large_family() { return {list_of(list), list_of(large_preferences)}; }

}  // namespace dwconv::cuda
