// The operators for CUDA tensors. Their schemas are in csrc/binding/ops.cpp, the checks in csrc/binding/operators.h.
//
// Work goes to the current stream of the tensors' device, nothing waits for it, and memory comes from PyTorch's caching
// allocator, so a call can be captured in a CUDA graph.
#define USE_CUDA  // what of the stable ABI libtorch_cuda has
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>

#include "../../binding/operators.h"
#include "../kernel.h"
#include "machine.h"

namespace dwconv {
namespace {

struct Cuda {
  static constexpr const char* kPlace = "on the CUDA device of the other operands";
  static bool owns(const Tensor& tensor) { return tensor.is_cuda(); }

  static bool runs_backward(Layout layout, const Tensor& like, const Shape& shape) {
    const int capability = cuda::compute_capability(like.get_device());
    return cuda::select({Operation::backward, dtype_of(like), layout, shape, Activation::none, capability}) != nullptr;
  }

  static void run(Operation operation, Layout layout, const Tensor& like, const Shape& shape, Buffers buffers) {
    const int32_t device = like.get_device();
    const torch::stable::accelerator::DeviceGuard guard(device);
    const int capability = cuda::compute_capability(device);
    STD_TORCH_CHECK(capability >= cuda::kOldestDevice,
                    "torch_dwconv: the CUDA device must have compute capability 7.5 or newer, got ", capability / 10,
                    ".", capability % 10);
    const cuda::Kernel& kernel =
        *cuda::select({operation, dtype_of(like), layout, shape, buffers.activation, capability});
    const int64_t bytes = kernel.workspace_bytes ? kernel.workspace_bytes(shape) : 0;
    // Freed on return, when the kernel may not have begun: the allocator hands it on in the order of the stream.
    std::optional<Tensor> workspace;
    if (bytes > 0) {
      workspace = allocate_workspace(like, bytes);
      buffers.workspace = workspace->mutable_data_ptr();
    }
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream));
    const char* error = kernel.launch(shape, buffers, static_cast<cuda::Stream>(stream));
    STD_TORCH_CHECK(error == nullptr, "torch_dwconv: ", kernel.name, " was not launched: ", error);
  }
};

}  // namespace
}  // namespace dwconv

STABLE_TORCH_LIBRARY_IMPL(torch_dwconv, CUDA, m) { dwconv::implement<dwconv::Cuda>(m); }
