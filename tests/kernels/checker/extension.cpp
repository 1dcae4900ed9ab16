// The checker inside Python: the same checks of any kernel of the library that is loaded, against F.conv2d.
//
// It links to nothing. A kernel's address comes from dwconv_kernel() of the very library that users load.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <functional>
#include <stdexcept>

#include "checks.h"
#include "compare.h"
#include "planted.h"
#include "textbook.h"

namespace py = pybind11;
using namespace dwconv;
using namespace dwconv::test;

namespace {

using Numbers = std::array<int64_t, 15>;  // the fields of Shape, in their order
using Values = py::array_t<double, py::array::c_style | py::array::forcecast>;
using Named = std::map<std::string, Values>;

const Kernel& kernel_at(uintptr_t address) { return *reinterpret_cast<const Kernel*>(address); }

Shape to_shape(const Numbers& v) {
  return {v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8], v[9], v[10], v[11], v[12], v[13], v[14]};
}

Values to_array(const std::vector<double>& values) { return Values(py::ssize_t(values.size()), values.data()); }
std::vector<double> to_vector(const Values& array) { return {array.data(), array.data() + array.size()}; }

Named to_arrays(const Operands& operands) {
  return {{"input", to_array(operands.input)},       {"weight", to_array(operands.weight)},
          {"bias", to_array(operands.bias)},         {"grad_output", to_array(operands.grad_output)},
          {"residual", to_array(operands.residual)}, {"scale", to_array(operands.scale)},
          {"epsilon", to_array({operands.epsilon})}, {"mean", to_array(operands.mean)},
          {"variance", to_array(operands.variance)}, {"activation", to_array({double(operands.activation)})},
          {"states", to_array(operands.states)},     {"reach", to_array(operands.reach)},
          {"cache", to_array(operands.cache)},       {"rows", to_array(operands.rows)},
          {"begins", to_array(operands.begins)}};
}

Operands to_operands(const Named& arrays) {
  const auto values = [&](const char* name) {
    const auto found = arrays.find(name);
    return found == arrays.end() ? std::vector<double>() : to_vector(found->second);
  };
  const std::vector<double> epsilon = values("epsilon"), activation = values("activation");
  return {values("input"),
          values("weight"),
          values("bias"),
          values("grad_output"),
          values("residual"),
          values("scale"),
          epsilon.empty() ? 0 : epsilon[0],
          values("mean"),
          values("variance"),
          activation.empty() ? Activation::none : Activation(int(activation[0])),
          values("states"),
          values("reach"),
          values("cache"),
          values("rows"),
          values("begins")};
}

// `answers` maps operands of a kind to every Answer of it by its name. Each set of operands is asked for once: those of one problem stay
// where they are.
class PythonOracle {
 public:
  PythonOracle(const py::function& answers, const Numbers& shape) : answers_(answers), shape_(shape) {}

  std::vector<double> operator()(Answer answer, const Shape&, const Operands& operands) {
    if (known_.count(&operands) == 0) {
      known_[&operands] = answers_(test::name(kind_of(answer)), shape_, to_arrays(operands)).cast<Named>();
    }
    return to_vector(known_.at(&operands).at(test::name(answer)));
  }

 private:
  const py::function& answers_;
  const Numbers& shape_;
  std::map<const Operands*, Named> known_;
};

std::vector<std::string> check(const std::vector<uintptr_t>& kernels, const Numbers& shape, uint64_t seed,
                               const std::vector<Check>& checks, const py::function& answers,
                               const std::vector<Placement>& placements, std::optional<bool> with_bias,
                               std::optional<bool> with_residual, std::optional<int> activation,
                               std::optional<Data> data) {
  Tally tally;
  for (const Kind kind : kKinds) {
    PythonOracle oracle(answers, shape);
    Options options = {{}, checks, std::ref(oracle), 3, placements, with_bias, with_residual, {}, data};
    if (activation) options.activation = Activation(*activation);
    for (const uintptr_t address : kernels) {
      const Kernel& kernel = kernel_at(address);
      if (kind_of(kernel.operation) == kind) options.kernels.push_back(&kernel);
    }
    tally.calls_of.clear();
    if (!options.kernels.empty()) check_shape(options, kind, to_shape(shape), seed, tally);
  }
  return tally.failures;
}

// One call on numbers that the dtype holds; results in NCHW.
Named run(uintptr_t address, const Numbers& numbers, const Named& operands, int activation) {
  const Shape shape = to_shape(numbers);
  const Call call(kernel_at(address), shape);
  const Kernel& kernel = call.kernel();
  const Given given = {operands.count("bias") > 0, operands.count("residual") > 0};
  const Form form = {kernel.operation, kernel.dtype, kernel.layout, Placement::back, given, Activation(activation)};
  const StoredOperands stored(form, shape, to_operands(operands));
  const Writable memory(form, shape, call, stored);
  const auto fault = call.run_guarded(memory.buffers(), memory.memory(), call.ranges(Partition::whole, 0));
  const auto wrong = fault ? fault : memory.damage();
  if (wrong) throw std::runtime_error(kernel.name + (": " + *wrong));
  Named results;
  for (const Output& output : memory.written()) results[output.name] = to_array(memory.values(output));
  return results;
}

Named textbook_answers(const std::string& kind, const Numbers& numbers, const Named& arrays) {
  const Operands operands = to_operands(arrays);
  Named answers;
  for (int i = 0; i < kAnswers; ++i) {
    const auto answer = Answer(i);
    if (kind_of(answer) != parse_kind(kind)) continue;
    answers[test::name(answer)] = to_array(textbook(answer, to_shape(numbers), operands));
  }
  return answers;
}

// A number through the checker's rounding, storing and loading.
double stored(double value, DType dtype) {
  uint8_t bytes[8];
  store(round_once(value, dtype), dtype, bytes);
  return load(bytes, dtype);
}

// What is wrong with numbers of a dtype that should be `right`: to the last bit, or as sums of `terms` terms.
std::string exact_difference(const Values& got, const Values& right, DType dtype) {
  return difference(to_vector(got), exactly(to_vector(right), 1, dtype));
}
std::string bounded_difference(const Values& got, const Values& right, const Values& magnitudes, int64_t terms,
                               DType dtype) {
  return difference(to_vector(got), within_bounds(to_vector(right), to_vector(magnitudes), terms, dtype));
}

Ranges ranges(int64_t items, Partition partition, uint64_t seed) {
  Random random(seed);
  return ranges_of(items, partition, random);
}

}  // namespace

PYBIND11_MODULE(kernel_extension, m) {
  py::enum_<Placement>(m, "Placement")
      .value("front", Placement::front)
      .value("back", Placement::back)
      .value("inside", Placement::inside);
  py::enum_<DType>(m, "DType")
      .value("f32", DType::f32)
      .value("f64", DType::f64)
      .value("bf16", DType::bf16)
      .value("f16", DType::f16);
  py::enum_<Check> check_type(m, "Check");
  for (const Check each : kChecks) check_type.value(test::name(each), each);
  py::enum_<Data> data_type(m, "Data");
  for (const Data each : kData) data_type.value(test::name(each), each);
  py::enum_<Partition> partition_type(m, "Partition");
  for (const Partition each : kPartitions) partition_type.value(test::name(each), each);

  m.def("refusal", [](uintptr_t kernel, const Numbers& shape) {
    const char* reason = kernel_at(kernel).supports(to_shape(shape));
    return reason ? std::optional<std::string>(reason) : std::nullopt;
  });
  m.def("workspace_bytes", [](uintptr_t kernel, const Numbers& shape) {
    return Call(kernel_at(kernel), to_shape(shape)).workspace_bytes();
  });
  m.def("check", &check);
  m.def("run", &run);
  m.def("operands", [](const std::string& kind, const Numbers& shape, Data data, uint64_t seed) {
    return to_arrays(draw(to_shape(shape), parse_kind(kind), data, seed));
  });
  m.def("textbook", &textbook_answers);
  m.def("stored", &stored);
  m.def("exact_difference", &exact_difference);
  m.def("bounded_difference", &bounded_difference);
  m.def("ranges", &ranges);
  m.def("planted", [] {
    std::map<std::string, uintptr_t> kernels;
    for (const KernelList list :
         {planted_kernels(), planted_block_kernels(), planted_training_kernels(), planted_sequence_kernels()}) {
      for (const Kernel& kernel : list) kernels[kernel.name] = reinterpret_cast<uintptr_t>(&kernel);
    }
    return kernels;
  });
}
