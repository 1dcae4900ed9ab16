// The Python side of tests/cuda: the emulated kernels, for tests/kernels/harness.py to run, and the order of threads.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "../../../csrc/cuda/kernel.h"
#include "../../../csrc/names.h"
#include "emulator.h"
#include "planted.h"
#include "record.h"
#include "registered.h"

namespace py = pybind11;
using namespace dwconv;

namespace {

using Numbers = std::array<int64_t, 15>;  // the fields of Shape, in their order

Shape to_shape(const Numbers& v) {
  return {v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8], v[9], v[10], v[11], v[12], v[13], v[14]};
}

using Addresses = std::map<std::string, uintptr_t>;

const char* launch(size_t index, const Numbers& shape, const Addresses& addresses, int activation) {
  const auto address = [&](const char* name) {
    const auto found = addresses.find(name);
    return found == addresses.end() ? nullptr : reinterpret_cast<void*>(found->second);
  };
  Buffers buffers = {address("input"),  address("weight"),      address("bias"),      address("grad_output"),
                     address("result"), address("grad_weight"), address("grad_bias"), address("workspace")};
  buffers.activation = Activation(activation);
  return cuda::kernels().begin()[index].launch(to_shape(shape), buffers, nullptr);
}

std::optional<std::string> asked(const char* (*question)(const cuda::Kernel&, const cuda::Request&), size_t index,
                                 const Numbers& numbers, int activation, int compute_capability) {
  const cuda::Kernel& kernel = cuda::kernels().begin()[index];
  const Shape shape = to_shape(numbers);
  const char* reason = question(
      kernel, {kernel.operation, kernel.dtype, kernel.layout, shape, Activation(activation), compute_capability});
  return reason ? std::optional<std::string>(reason) : std::nullopt;
}

}  // namespace

PYBIND11_MODULE(cuda_extension, m) {
  // name, operation, dtype, layout, compute capability, address of the adapted kernel; in the registry's order
  m.def("kernels", [] {
    std::vector<std::tuple<std::string, std::string, std::string, std::string, int, uintptr_t>> all;
    const cuda::Kernel* kernel = cuda::kernels().begin();
    for (const Kernel& adapted : test::registered()) {
      all.emplace_back(kernel->name, name(kernel->operation), name(kernel->dtype), name(kernel->layout),
                       kernel->compute_capability, reinterpret_cast<uintptr_t>(&adapted));
      ++kernel;
    }
    return all;
  });
  m.def("selected",
        [](int operation, int dtype, int layout, const Numbers& shape, int activation, int compute_capability) {
          const cuda::Kernel* kernel = cuda::select({Operation(operation), DType(dtype), Layout(layout),
                                                     to_shape(shape), Activation(activation), compute_capability});
          return kernel ? std::optional<std::string>(kernel->name) : std::nullopt;
        });
  // Why a kernel, by its place in the registry, cannot compute the shape with an activation on a device; None if it can.
  m.def("refusal", [](size_t index, const Numbers& shape, int activation, int compute_capability) {
    return asked(cuda::refusal, index, shape, activation, compute_capability);
  });
  // Why a kernel that can is passed over; None if it is not.
  m.def("passed_over", [](size_t index, const Numbers& shape, int activation, int compute_capability) {
    return asked(cuda::passed_over, index, shape, activation, compute_capability);
  });
  // A kernel by its place in the registry, on addresses; null where none is given. None, or the error of the launch.
  m.def("launch", [](size_t index, const Numbers& shape, const Addresses& addresses, int activation) {
    const char* error = launch(index, shape, addresses, activation);
    return error ? std::optional<std::string>(error) : std::nullopt;
  });
  // The same, watched: for each buffer of (address, bytes) the bytes of the widest access to it, 0 for none.
  m.def("widths",
        [](size_t index, const Numbers& shape, const std::map<std::string, std::pair<uintptr_t, size_t>>& all) {
          Addresses addresses;
          std::vector<emulator::Watched> memory;
          for (const auto& [name, buffer] : all) {
            addresses[name] = buffer.first;
            memory.push_back({reinterpret_cast<const void*>(buffer.first), buffer.second});
          }
          emulator::watch(memory);
          const char* error = launch(index, shape, addresses, 0);
          memory = emulator::stop_watching();
          if (error) throw std::runtime_error(error);
          std::map<std::string, size_t> widths;
          for (const auto& [name, buffer] : all) widths[name] = memory[widths.size()].widest;
          return widths;
        });
  // (kernel's address in the library, grid, block, bytes of shared memory, parameters) of each launch, none of which runs.
  m.def("recorded", [](size_t index, const Numbers& shape, const Addresses& addresses, int activation) {
    emulator::start_recording();
    launch(index, shape, addresses, activation);
    py::list all;
    for (const emulator::Recorded& r : emulator::stop_recording()) {
      all.append(py::make_tuple(r.kernel, py::make_tuple(r.grid.x, r.grid.y, r.grid.z),
                                py::make_tuple(r.block.x, r.block.y, r.block.z), r.shared_bytes,
                                py::bytes(r.parameters)));
    }
    return all;
  });
  m.def("set_order", [](int order, uint64_t seed) { emulator::set_order(emulator::Order(order), seed); });
  m.def("planted", [](const std::string& bug) -> std::optional<std::string> {
    const char* error = test::run_planted(bug.c_str());
    return error ? std::optional<std::string>(error) : std::nullopt;
  });
  m.def("planted_bugs", &test::planted_bugs);
}
