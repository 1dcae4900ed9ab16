#include "machine.h"

#include <cuda_runtime.h>

#include "../kernel.h"

namespace dwconv::cuda {
namespace {

// Stands for all kernels of the library: they are compiled for the same devices.
__global__ void probe() {}

const char* reported(cudaError_t error) {
  if (error == cudaSuccess) return nullptr;
  (void)cudaGetLastError();  // ours to report: the next launch of someone else must not find it
  return cudaGetErrorString(error);
}

}  // namespace

int compute_capability(int device) {
  int major = 0, minor = 0;
  const bool known = reported(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device)) == nullptr &&
                     reported(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device)) == nullptr;
  return known ? major * 10 + minor : 0;
}

const char* refusal_of_current_device() {
  int count = 0, device = 0;
  if (const char* error = reported(cudaGetDeviceCount(&count))) return error;
  if (const char* error = reported(cudaGetDevice(&device))) return error;
  if (compute_capability(device) < kOldestDevice) return "its compute capability is below 7.5";
  cudaFuncAttributes attributes;
  return reported(cudaFuncGetAttributes(&attributes, probe));
}

}  // namespace dwconv::cuda
