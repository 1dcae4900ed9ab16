// What the binding asks of the CUDA runtime; without a CUDA header, which only machine.cu needs.
#pragma once

namespace dwconv::cuda {

// 90 for compute capability 9.0; 0 if the runtime does not say.
int compute_capability(int device);

// Why this library's kernels do not run on the current device, nullptr if they do: there is none, it is too old, its driver
// is, or the library holds no machine code that it runs.
const char* refusal_of_current_device();

}  // namespace dwconv::cuda
