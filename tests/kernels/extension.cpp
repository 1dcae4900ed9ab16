// The Python side of tests/kernels: calls any kernel by its address, on guarded buffers, a chosen range at a time.
//
// It links to nothing. A kernel's address comes from dwconv_kernel() of the very library that users load.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "call.h"
#include "checker/number.h"
#include "checker/textbook.h"
#include "planted.h"

namespace py = pybind11;
using namespace dwconv;
using namespace dwconv::test;

namespace {

using Numbers = std::array<int64_t, 15>;  // the fields of Shape, in their order

struct KernelFault : std::runtime_error {
  using std::runtime_error::runtime_error;
};

const Kernel& kernel_at(uintptr_t address) { return *reinterpret_cast<const Kernel*>(address); }

Shape to_shape(const Numbers& v) {
  return {v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8], v[9], v[10], v[11], v[12], v[13], v[14]};
}

std::optional<std::string> refusal(uintptr_t kernel, const Numbers& shape) {
  const char* reason = kernel_at(kernel).supports(to_shape(shape));
  return reason ? std::optional<std::string>(reason) : std::nullopt;
}

int64_t workspace_bytes_of(uintptr_t kernel, const Numbers& shape) {
  return workspace_bytes(kernel_at(kernel), to_shape(shape));
}

std::vector<int64_t> items(uintptr_t kernel, const Numbers& shape) {
  Plan plan;
  kernel_at(kernel).make_plan(to_shape(shape), plan);
  return items_of(kernel_at(kernel), plan);
}

// Runs every stage over its ranges, in their order. Pointers of operands that are not given are null.
void run(uintptr_t address, const Numbers& numbers, const Memory& memory, const std::vector<Ranges>& stages,
         int activation) {
  Buffers buffers = to_buffers(memory);
  buffers.activation = Activation(activation);
  Plan plan;
  kernel_at(address).make_plan(to_shape(numbers), plan);
  if (const auto fault = call(kernel_at(address), plan, buffers, memory, stages)) {
    throw KernelFault(*fault);
  }
}

// The checker's own right answers, to be compared with PyTorch's.
std::vector<double> textbook_values(Operation operation, const Numbers& numbers, std::vector<double> input,
                                    std::vector<double> weight, std::vector<double> grad_output) {
  return textbook(operation, to_shape(numbers), {std::move(input), std::move(weight), {}, std::move(grad_output)})
      .value;
}

// A number through the checker's rounding, storing and loading.
double stored(double value, DType dtype) {
  uint8_t bytes[8];
  store(round_once(value, dtype), dtype, bytes);
  return load(bytes, dtype);
}

}  // namespace

PYBIND11_MODULE(kernel_extension, m) {
  py::register_exception<KernelFault>(m, "KernelFault");

  py::enum_<Placement>(m, "Placement")
      .value("front", Placement::front)
      .value("back", Placement::back)
      .value("inside", Placement::inside);

  py::class_<Guarded>(m, "Guarded", py::buffer_protocol())
      .def(py::init<size_t, size_t, Placement, uint8_t>(), py::arg("bytes"), py::arg("element"), py::arg("placement"),
           py::arg("margin"))
      .def_buffer([](Guarded& g) { return py::buffer_info(g.data(), py::ssize_t(g.size())); })
      .def("seal", &Guarded::seal)
      .def("damage", &Guarded::damage);

  m.def("refusal", &refusal);
  m.def("workspace_bytes", &workspace_bytes_of);
  m.def("items", &items);
  m.def("run", &run, py::arg("kernel"), py::arg("shape"), py::arg("memory"), py::arg("stages"), py::arg("activation"));

  py::enum_<Operation>(m, "Operation")
      .value("forward", Operation::forward)
      .value("grad_input", Operation::grad_input)
      .value("grad_weight", Operation::grad_weight);
  py::enum_<DType>(m, "DType")
      .value("f32", DType::f32)
      .value("f64", DType::f64)
      .value("bf16", DType::bf16)
      .value("f16", DType::f16);
  m.def("textbook", &textbook_values);
  m.def("stored", &stored);

  m.def("planted", [] {
    std::map<std::string, uintptr_t> kernels;
    for (const Kernel& kernel : planted_kernels()) kernels[kernel.name] = reinterpret_cast<uintptr_t>(&kernel);
    return kernels;
  });
}
