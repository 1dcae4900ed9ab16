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

#include "guarded.h"
#include "kernel.h"
#include "planted.h"

namespace py = pybind11;
using namespace dwconv;
using namespace dwconv::test;

namespace {

using Numbers = std::array<int64_t, 15>;  // the fields of Shape, in their order
using Operands = std::map<std::string, Guarded*>;
using Ranges = std::vector<std::pair<int64_t, int64_t>>;

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

int64_t workspace_bytes(uintptr_t kernel, const Numbers& shape) {
  const auto bytes = kernel_at(kernel).workspace_bytes;
  return bytes ? bytes(to_shape(shape)) : 0;
}

std::vector<int64_t> items(uintptr_t kernel, const Numbers& shape) {
  std::vector<int64_t> counts;
  for (const Stage& stage : kernel_at(kernel).stages) {
    if (!stage.run) break;
    counts.push_back(stage.items(to_shape(shape)));
  }
  return counts;
}

// "12 bytes after the end of input", or the bare address if no operand is near it.
std::string locate(const void* address, const Operands& operands) {
  for (const auto& [name, buffer] : operands) {
    if (!buffer->owns(address)) continue;
    const auto* p = static_cast<const uint8_t*>(address);
    const uint8_t* end = buffer->data() + buffer->size();
    if (p < buffer->data()) return std::to_string(buffer->data() - p) + " bytes before " + name;
    if (p >= end) return std::to_string(p - end) + " bytes after the end of " + name;
    return "a write to byte " + std::to_string(p - buffer->data()) + " of the operand " + name;
  }
  return address ? "an address near no operand" : "a null pointer";
}

// A call in progress: what to run, and how far it has come.
struct Call {
  const Kernel& kernel;
  const Shape shape;
  const Buffers buffers;
  const std::vector<Ranges>& stages;
  volatile size_t stage = 0, range = 0;

  static void run(void* self) {
    Call& call = *static_cast<Call*>(self);
    for (call.stage = 0; call.stage < call.stages.size(); call.stage = call.stage + 1) {
      const Ranges& ranges = call.stages[call.stage];
      for (call.range = 0; call.range < ranges.size(); call.range = call.range + 1) {
        const auto [begin, end] = ranges[call.range];
        call.kernel.stages[call.stage].run(call.shape, call.buffers, begin, end);
      }
    }
  }
};

// Runs every stage over its ranges, in their order. Pointers of operands that are not given are null.
void run(uintptr_t address, const Numbers& numbers, const Operands& operands, const std::vector<Ranges>& stages) {
  const auto pointer = [&](const char* name) -> void* {
    const auto found = operands.find(name);
    return found == operands.end() ? nullptr : found->second->data();
  };
  const Buffers buffers = {pointer("input"),  pointer("weight"),    pointer("bias"),     pointer("grad_output"),
                           pointer("result"), pointer("grad_bias"), pointer("workspace")};
  Call call = {kernel_at(address), to_shape(numbers), buffers, stages};
  if (const auto fault = trap_faults(Call::run, &call)) {
    const auto [begin, end] = stages[call.stage][call.range];
    throw KernelFault(std::string(call.kernel.name) + ": " + strsignal(fault->signal) + " at " +
                      locate(fault->address, operands) + ", in stage " + std::to_string(call.stage) + ", items [" +
                      std::to_string(begin) + ", " + std::to_string(end) + ")");
  }
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
  m.def("workspace_bytes", &workspace_bytes);
  m.def("items", &items);
  m.def("run", &run, py::arg("kernel"), py::arg("shape"), py::arg("operands"), py::arg("stages"));

  m.def("planted", [] {
    std::map<std::string, uintptr_t> kernels;
    for (const Kernel& kernel : planted_kernels()) kernels[kernel.name] = reinterpret_cast<uintptr_t>(&kernel);
    return kernels;
  });
}
