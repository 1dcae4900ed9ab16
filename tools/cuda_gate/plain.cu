// Kernels written for comparison, whose instructions counts.py counts beside ours. The plain way: a thread for
// each output, which decodes its place by divisions and reads every source of every tap.
#include "../../csrc/cuda/device/device.cuh"

namespace dwconv::cuda {

template <class T, int K>
__global__ void one_thread_per_output(const T* source, const T* weight, T* result, int count, int channels, int rows,
                                      int columns, int source_rows, int source_columns, int pad, int stride) {
  const int index = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (index >= count) return;
  const int column = index % columns, row = index / columns % rows, plane = index / columns / rows;
  const int channel = plane % channels;
  Accumulator<T> sum = 0;
#pragma unroll
  for (int kh = 0; kh < K; ++kh) {
#pragma unroll
    for (int kw = 0; kw < K; ++kw) {
      const int h = row * stride - pad + kh, w = column * stride - pad + kw;
      if (h >= 0 && h < source_rows && w >= 0 && w < source_columns) {
        sum = multiply_add(widen(__ldg(source + (plane * source_rows + h) * source_columns + w)),
                           widen(__ldg(weight + (channel * K + kh) * K + kw)), sum);
      }
    }
  }
  result[index] = narrow<T>(sum);
}

template __global__ void one_thread_per_output<float, 3>(const float*, const float*, float*, int, int, int, int, int,
                                                         int, int, int);
template __global__ void one_thread_per_output<float, 5>(const float*, const float*, float*, int, int, int, int, int,
                                                         int, int, int);
template __global__ void one_thread_per_output<float, 7>(const float*, const float*, float*, int, int, int, int, int,
                                                         int, int, int);

// The same in channels_last, where neighbouring threads have neighbouring channels.
template <class T, int K>
__global__ void one_thread_per_output_nhwc(const T* source, const T* weight, T* result, int count, int channels,
                                           int rows, int columns, int source_rows, int source_columns, int pad,
                                           int stride) {
  const int index = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (index >= count) return;
  const int channel = index % channels, column = index / channels % columns;
  const int row = index / channels / columns % rows, image = index / channels / columns / rows;
  Accumulator<T> sum = 0;
#pragma unroll
  for (int kh = 0; kh < K; ++kh) {
#pragma unroll
    for (int kw = 0; kw < K; ++kw) {
      const int h = row * stride - pad + kh, w = column * stride - pad + kw;
      if (h >= 0 && h < source_rows && w >= 0 && w < source_columns) {
        sum = multiply_add(widen(__ldg(source + ((image * source_rows + h) * source_columns + w) * channels + channel)),
                           widen(__ldg(weight + (channel * K + kh) * K + kw)), sum);
      }
    }
  }
  result[index] = narrow<T>(sum);
}

template __global__ void one_thread_per_output_nhwc<float, 3>(const float*, const float*, float*, int, int, int, int,
                                                              int, int, int, int);
template __global__ void one_thread_per_output_nhwc<float, 5>(const float*, const float*, float*, int, int, int, int,
                                                              int, int, int, int);
template __global__ void one_thread_per_output_nhwc<float, 7>(const float*, const float*, float*, int, int, int, int,
                                                              int, int, int, int);

// The plain way of grad_weight: a block for each tap of each channel, a warp for each image, which walks all outputs.
template <class T, int K>
__global__ void one_block_per_tap(const T* source, const T* grad_output, T* grad_weight, int images, int channels,
                                  int rows, int columns, int source_rows, int source_columns, int pad, int stride) {
  const int channel = int(blockIdx.x) / (K * K), kh = int(blockIdx.x) / K % K, kw = int(blockIdx.x) % K;
  Accumulator<T> sum = 0;
  for (int image = int(threadIdx.x) / 32; image < images; image += int(blockDim.x) / 32) {
    const int plane = image * channels + channel;
#pragma unroll 1
    for (int index = int(threadIdx.x) % 32; index < rows * columns; index += 32) {
      const int row = index / columns, column = index % columns;
      const int h = row * stride - pad + kh, w = column * stride - pad + kw;
      if (h >= 0 && h < source_rows && w >= 0 && w < source_columns) {
        sum = multiply_add(widen(__ldg(source + (plane * source_rows + h) * source_columns + w)),
                           widen(__ldg(grad_output + plane * rows * columns + index)), sum);
      }
    }
  }
  DWCONV_SHARED_MEMORY(Accumulator<T>, sums);
  sums[threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int i = 1; i < int(blockDim.x); ++i) sum += sums[i];
    grad_weight[blockIdx.x] = narrow<T>(sum);
  }
}

template __global__ void one_block_per_tap<float, 3>(const float*, const float*, float*, int, int, int, int, int, int,
                                                     int, int);
template __global__ void one_block_per_tap<float, 5>(const float*, const float*, float*, int, int, int, int, int, int,
                                                     int, int);
template __global__ void one_block_per_tap<float, 7>(const float*, const float*, float*, int, int, int, int, int, int,
                                                     int, int);

}  // namespace dwconv::cuda
