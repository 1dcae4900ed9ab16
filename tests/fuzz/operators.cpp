// A target for libFuzzer: bytes become a call of one operator with any arguments, and the coverage of the operators and of
// the kernels tells libFuzzer which bytes to vary. A result or an exception passes; sanitizers see the rest.
//
// tests/fuzz/coverage.py builds it with the binding itself, so that what is called is what torch.ops calls. Tensors lie in
// blocks of exactly their extent. Planted, the check of the geometry is left out, which has to be noticed.
#include <fuzzer/FuzzedDataProvider.h>

#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "binding/geometry.h"
#ifdef PLANTED
#define check_geometry(shape) (void)(shape)
#endif
#include "binding/ops.cpp"

using namespace dwconv;

// Memory that a call asks for and does not get is an exception, not a crash.
extern "C" const char* __asan_default_options() {
  return "allocator_may_return_null=1:max_allocation_size_mb=64:detect_leaks=0";
}

namespace {

constexpr double kMostWork = 1 << 18, kMostNumbers = 1 << 16;  // of a call that would be honest and long
constexpr int64_t kMostElements = 1 << 14;                     // that a tensor's storage has
constexpr int64_t kLimit = std::numeric_limits<int64_t>::max();

struct Bytes : FuzzedDataProvider {
  using FuzzedDataProvider::FuzzedDataProvider;

  // Small in most cases, or next to a power of two, or anything.
  int64_t integer(int64_t smallest) {
    const auto kind = ConsumeIntegralInRange<uint8_t>(0, 63);
    if (kind < 56) return ConsumeIntegralInRange<int64_t>(smallest, 9);
    if (kind < 58) return ConsumeIntegralInRange<int64_t>(0, 80);
    if (kind < 60) return -ConsumeIntegralInRange<int64_t>(0, 3);
    if (kind < 63) return (int64_t(1) << ConsumeIntegralInRange(7, 62)) + ConsumeIntegralInRange<int64_t>(-1, 1);
    return ConsumeIntegral<int64_t>();
  }
  bool seldom() { return ConsumeIntegralInRange<uint8_t>(0, 15) == 15; }
};

// Elements from the first to the last one that strides reach; more than kMostElements where it overflows.
int64_t extent(const std::vector<int64_t>& sizes, const std::vector<int64_t>& strides) {
  int64_t last = 0;
  for (size_t i = 0; i < sizes.size(); ++i) {
    int64_t reach;
    if (sizes[i] == 0) return 0;
    if (__builtin_mul_overflow(sizes[i] - 1, strides[i], &reach) || __builtin_add_overflow(last, reach, &last)) {
      return kLimit;
    }
  }
  return std::min(last, kLimit - 1) + 1;
}

// Whether a tensor can have so many elements at all: others are PyTorch's to refuse.
bool can_be(const std::vector<int64_t>& sizes) {
  int64_t product = 8;
  for (const int64_t size : sizes) {
    if (size < 0 || __builtin_mul_overflow(product, std::max<int64_t>(size, 1), &product)) return false;
  }
  return true;
}

std::vector<int64_t> dense_of(const std::vector<int64_t>& sizes, bool channels_last) {
  if (sizes.size() == 4) {
    const auto strides =
        dense_strides({sizes[0], sizes[1], sizes[2], sizes[3]}, channels_last ? Layout::nhwc : Layout::nchw);
    return {strides.begin(), strides.end()};
  }
  if (sizes.size() == 3 && channels_last) return {sizes[1] * sizes[2], 1, sizes[1]};
  std::vector<int64_t> strides(sizes.size(), 1);
  for (size_t i = sizes.size(); i-- > 1;) strides[i - 1] = strides[i] * std::max<int64_t>(sizes[i], 1);
  return strides;
}

// The tensors of a call, which live as long as it.
class Tensors {
 public:
  Tensors(Bytes& bytes) : bytes_(bytes) {
    const int32_t dtypes[] = {aoti_torch_dtype_float32(), aoti_torch_dtype_float64(), aoti_torch_dtype_bfloat16(),
                              aoti_torch_dtype_float16(), aoti_torch_dtype_int64(),   aoti_torch_dtype_bool()};
    dtype_ = dtypes[std::min<int>(bytes.ConsumeIntegralInRange(0, 15) / 2, 5)];
  }

  // Of these sizes, as often as not; nothing where PyTorch has no such tensor, or it would need much memory.
  std::optional<Tensor> make(const std::vector<int64_t>& sizes) {
    return make(sizes, bytes_.seldom() ? aoti_torch_dtype_float64() : dtype_);
  }

  // Of int32: numbers of which the first are anything.
  std::optional<Tensor> make_integers(const std::vector<int64_t>& sizes) {
    const auto made = make(sizes, bytes_.seldom() ? dtype_ : aoti_torch_dtype_int32());
    if (!made || extent_ == 0) return made;
    unsigned char* const data = storage_.back().get() + size_t(extent_) * 8 - size_t(extent_) * 4;
    for (int64_t i = 0; i < std::min<int64_t>(extent_, 12); ++i) {
      const auto value = int32_t(bytes_.integer(-1));
      std::memcpy(data + i * 4, &value, 4);
    }
    return made;
  }

 private:
  std::optional<Tensor> make(std::vector<int64_t> sizes, int32_t dtype) {
    if (bytes_.seldom()) sizes[bytes_.ConsumeIntegralInRange<size_t>(0, sizes.size() - 1)] = bytes_.integer(0);
    if (bytes_.seldom()) sizes.resize(bytes_.ConsumeIntegralInRange<size_t>(0, 5), 1);
    if (!can_be(sizes)) return std::nullopt;
    std::vector<int64_t> strides = dense_of(sizes, bytes_.ConsumeBool());
    if (bytes_.seldom()) {
      for (int64_t& stride : strides) stride = bytes_.ConsumeIntegralInRange<int64_t>(0, 9);
    }
    // A few numbers behind sizes without end.
    if (extent(sizes, strides) > kMostElements) {
      for (size_t i = 0; i < sizes.size(); ++i) strides[i] = sizes[i] > 9 ? 0 : strides[i] % 100;
    }
    const int64_t elements = extent(sizes, strides);
    if (elements > kMostElements) return std::nullopt;
    extent_ = elements;
    storage_.emplace_back(new unsigned char[size_t(elements) * 8]());
    // Flush against the end of its block.
    unsigned char* const data = storage_.back().get() + elements * (8 - element_size(dtype));
    AtenTensorHandle handle = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_create_tensor_from_blob(data, int64_t(sizes.size()), sizes.data(), strides.data(),
                                                              0, dtype, aoti_torch_device_type_cpu(), 0, &handle));
    return Tensor(handle);
  }

  static int64_t element_size(int32_t dtype) {
    if (dtype == aoti_torch_dtype_float64() || dtype == aoti_torch_dtype_int64()) return 8;
    if (dtype == aoti_torch_dtype_float32() || dtype == aoti_torch_dtype_int32()) return 4;
    return dtype == aoti_torch_dtype_bool() ? 1 : 2;
  }

  Bytes& bytes_;
  int32_t dtype_;
  int64_t extent_ = 0;  // of the last tensor, in elements
  std::vector<std::unique_ptr<unsigned char[]>> storage_;
};

// Whether a call would be computed, and take long for honest work; what is larger still is refused for its memory.
bool is_long(double written, double terms) {
  return written < 1e9 && (written > kMostNumbers || written * std::max(terms, 1.0) > kMostWork);
}

double numbers(const Tensor& tensor) {
  double product = 1;
  for (const int64_t size : tensor.sizes()) product *= double(size);
  return product;
}

// Sequences have no reference kernels, and the vectorised ones are compiled for one dtype.
bool has_kernels(const Tensor& x, Operation operation) {
  const ScalarType type = x.scalar_type();
  if (type == ScalarType::Long || type == ScalarType::Bool || type == ScalarType::Int) return true;  // to be refused
  const KernelList all = active_kernels();
  return std::any_of(all.begin(), all.end(), [&](const Kernel& kernel) {
    return kernel.operation == operation && kernel.dtype == dtype_of(x);
  });
}

void call_sequence(Bytes& bytes, Operation operation) {
  const bool with_bias = bytes.ConsumeBool(), more = bytes.ConsumeBool(), with_integers = bytes.ConsumeBool();
  const int64_t silu = bytes.ConsumeBool() ? int64_t(Activation::silu) : 0;
  const int64_t activation = bytes.seldom() ? bytes.integer(0) : silu;
  const int64_t n = bytes.integer(1), c = bytes.integer(1), l = bytes.integer(1), k = bytes.integer(1);
  const int64_t dilation = bytes.ConsumeBool() ? 1 : bytes.integer(1), longer = bytes.integer(0);
  int64_t reach, length, rows;
  if (__builtin_mul_overflow(k - 1, dilation, &reach) || __builtin_add_overflow(k - 1, longer, &length) ||
      __builtin_add_overflow(n, longer & 3, &rows)) {
    return;
  }
  Tensors tensors(bytes);
  const auto x = tensors.make({n, c, l}), weight = tensors.make({c, k});
  if (!x || !weight || is_long(numbers(*x), double(k)) || is_long(numbers(*weight), 1)) return;
  if (!has_kernels(*x, operation)) return;
  const auto bias = with_bias ? tensors.make({c}) : std::nullopt;
  if (operation == Operation::sequence_step) {
    const auto cache = tensors.make({rows, c, length});
    const auto begins = with_integers ? tensors.make_integers({n}) : std::nullopt;
    const auto indices = more ? tensors.make_integers({n}) : std::nullopt;
    if (!cache || is_long(numbers(*cache), 1)) return;
    causal_conv1d_update<Cpu>(*x, *cache, *weight, bias, begins, indices, activation);
    return;
  }
  const auto states = more ? tensors.make({n, c, reach}) : std::nullopt;
  const auto seq_idx = with_integers ? tensors.make_integers({n, l}) : std::nullopt;
  if (operation == Operation::sequence) {
    causal_conv1d<Cpu>(*x, *weight, bias, states, seq_idx, dilation, activation);
    return;
  }
  const auto grad_output = tensors.make({n, c, l});
  if (!grad_output || is_long(numbers(*grad_output), double(k))) return;
  causal_conv1d_backward<Cpu>(*grad_output, *x, *weight, bias, states, seq_idx, dilation, activation);
}

void call(Bytes& bytes) {
  constexpr Operation kCalled[] = {Operation::forward,      Operation::grad_input, Operation::grad_weight,
                                   Operation::backward,     Operation::sequence,   Operation::sequence_backward,
                                   Operation::sequence_step};
  const Operation operation = bytes.PickValueInArray(kCalled);
  if (operation >= Operation::sequence) return call_sequence(bytes, operation);
  const bool channels_last = bytes.ConsumeBool(), with_bias = bytes.ConsumeBool(), has_out = bytes.seldom();
  const int64_t activation = bytes.seldom() ? bytes.integer(0) : bytes.ConsumeIntegralInRange<int64_t>(0, 6);
  const int64_t n = bytes.integer(1), c = bytes.integer(1), m = bytes.ConsumeBool() ? 1 : bytes.integer(1);
  const int64_t h = bytes.integer(1), w = bytes.integer(1), oh = bytes.integer(1), ow = bytes.integer(1);
  const int64_t kh = bytes.integer(1), kw = bytes.integer(1);
  const int64_t sh = bytes.integer(1), sw = bytes.ConsumeBool() ? sh : bytes.integer(1);
  const int64_t dh = bytes.ConsumeBool() ? 1 : bytes.integer(1), dw = bytes.ConsumeBool() ? 1 : bytes.integer(1);
  const int64_t top = bytes.integer(0), left = bytes.integer(0);
  int64_t channels;
  if (__builtin_mul_overflow(c, m, &channels)) return;

  Tensors tensors(bytes);
  const auto input = operation == Operation::grad_input ? std::nullopt : tensors.make({n, c, h, w});
  const auto weight = operation == Operation::grad_weight ? std::nullopt : tensors.make({channels, 1, kh, kw});
  const auto grad = operation == Operation::forward ? std::nullopt : tensors.make({n, channels, oh, ow});
  if (!input + !weight + !grad != (operation != Operation::backward)) return;
  const auto vector = with_bias ? tensors.make({channels}) : std::nullopt;
  const double outputs = double(n) * double(channels) * double(oh) * double(ow);
  switch (operation) {
    case Operation::forward: {
      const double planes =
          input->dim() == 4 && weight->dim() == 4 ? double(input->size(0)) * double(weight->size(0)) : 0;
      const double terms = numbers(*weight) / std::max(1.0, weight->dim() ? double(weight->size(0)) : 1.0);
      if (is_long(std::abs(planes * double(oh) * double(ow)), terms)) return;
      const Out out = has_out ? tensors.make({n, channels, oh, ow}) : std::nullopt;
      if (is_long(numbers(*input), 1)) return;
      forward<Cpu>(out, *input, *weight, vector, oh, ow, sh, sw, top, left, dh, dw, channels_last, activation);
      return;
    }
    case Operation::grad_input: {
      const double images = grad->dim() ? double(grad->size(0)) : 1;
      if (is_long(std::abs(images * double(c) * double(h) * double(w)), numbers(*weight)) ||
          is_long(numbers(*grad), 1)) {
        return;
      }
      const Out out = has_out ? tensors.make({n, c, h, w}) : std::nullopt;
      grad_input<Cpu>(out, *grad, *weight, c, h, w, sh, sw, top, left, dh, dw, channels_last);
      return;
    }
    case Operation::grad_weight: {
      const double filters = grad->dim() == 4 ? double(grad->size(1)) : 0;
      const double taps = std::abs(double(kh) * double(kw));
      if (is_long(filters * taps, numbers(*grad) / std::max(1.0, filters)) || is_long(numbers(*grad), 1)) return;
      if (is_long(numbers(*input), 1) || is_long(outputs, 1)) return;
      const Out out = has_out ? tensors.make({channels, 1, kh, kw}) : std::nullopt;
      const Out bias_out = has_out ? tensors.make({with_bias ? channels : 0}) : std::nullopt;
      grad_weight<Cpu>(out, bias_out, *input, *grad, kh, kw, sh, sw, top, left, dh, dw, with_bias, channels_last);
      return;
    }
    case Operation::backward: {
      if (is_long(numbers(*input), numbers(*weight)) || is_long(numbers(*grad), numbers(*weight))) return;
      backward<Cpu>(*grad, *input, *weight, sh, sw, top, left, dh, dw, with_bias, channels_last, has_out);
      return;
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Bytes bytes(data, size);
  try {
    call(bytes);
  } catch (const std::exception&) {
  }
  return 0;
}
