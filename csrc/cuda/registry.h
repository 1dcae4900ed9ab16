// The lists that the families of kernels contribute, best first; registry.cpp joins them.
#pragma once
#include "kernel.h"

namespace dwconv::cuda {

KernelList nchw_whole_kernels();               // nchw_whole.cu
KernelList nchw_packed_kernels();              // nchw_packed.cu
KernelList nchw_stream_kernels();              // nchw_stream.cu
KernelList nchw_grad_input_s2_kernels();       // nchw_grad_input_s2.cu
KernelList nchw_toeplitz_kernels();            // nchw_toeplitz.cu
KernelList nchw_large_kernels();               // nchw_large.cu
KernelList nhwc_stream_kernels();              // nhwc_stream.cu
KernelList gather_any_kernels();               // gather_any.cu
KernelList nchw_stream_grad_weight_kernels();  // nchw_stream_grad_weight.cu
KernelList nhwc_grad_weight_kernels();         // nhwc_grad_weight.cu
KernelList grad_weight_any_kernels();          // grad_weight_any.cu
KernelList nchw_stream_backward_kernels();     // nchw_stream_backward.cu

}  // namespace dwconv::cuda
