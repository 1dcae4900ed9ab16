#include "checks.h"

#include <cmath>
#include <cstring>
#include <iterator>

#include "cpu/registry.h"
#include "partition.h"

namespace dwconv::test {
namespace {

const char* name(Activation activation) {
  static constexpr const char* names[] = {"none", "relu", "relu6", "hardswish", "silu", "gelu", "gelu_tanh"};
  return names[int(activation)];
}

// A power of two that takes the integers to the smallest numbers of a dtype, and one that takes them near its largest.
double scale(DType dtype, bool huge) {
  static constexpr double scales[][2] = {
      {0x1p-149, 0x1p110}, {0x1p-1074, 0x1p1000}, {0x1p-133, 0x1p110}, {0x1p-24, 0x1p12}};
  return scales[int(dtype)][huge];
}

bool is_sixteen_bit(DType dtype) { return format(dtype).bytes == 2; }

// Long sums are kept in chains of some hundred terms, whose totals lose next to nothing more.
constexpr int64_t kChain = 2048;

// How far off each result may be: what the terms' order may lose in the accumulator, and one rounding.
std::vector<double> allowed_errors(const Sums& sums, int64_t terms, DType dtype) {
  std::vector<double> allowed(sums.value.size());
  // float64 is held against sums in float64, which are off by as much.
  const double unit = format(dtype).accumulator_unit * (dtype == DType::f64 ? 2 : 1);
  const double share = double(std::min(terms, kChain) + 2) * unit;
  for (size_t i = 0; i < allowed.size(); ++i) {
    allowed[i] = share * sums.magnitude[i] + half_unit(sums.value[i], dtype);
  }
  return allowed;
}

std::string number(double value) {
  char text[40];
  std::snprintf(text, sizeof text, "%.9g", value);
  return text;
}

// What a buffer should hold, in its order. Without `allowed` values must be equal, NaN for NaN.
struct Wanted {
  std::vector<double> value, allowed;
  double norm_bound = 0;  // of the error, where there is one
};

// Empty, or what is wrong first.
std::string difference(const Guarded& got, DType dtype, const Wanted& wanted) {
  const size_t bytes = format(dtype).bytes;
  size_t wrong = 0, first = 0;
  double error_norm = 0;
  for (size_t i = 0; i < wanted.value.size(); ++i) {
    const double value = load(got.data() + i * bytes, dtype), right = wanted.value[i], error = value - right;
    error_norm += error * error;
    const bool same = value == right || (std::isnan(value) && std::isnan(right));
    const bool good = same || (!wanted.allowed.empty() && std::fabs(error) <= wanted.allowed[i]);  // false for NaN
    if (!good && wrong++ == 0) first = i;
  }
  if (wrong) {
    return std::to_string(wrong) + " of " + std::to_string(wanted.value.size()) + " are wrong, element " +
           std::to_string(first) + " is " + number(load(got.data() + first * bytes, dtype)) + ", not " +
           number(wanted.value[first]) + (wanted.allowed.empty() ? "" : " +- " + number(wanted.allowed[first]));
  }
  if (wanted.norm_bound > 0 && !(std::sqrt(error_norm) <= wanted.norm_bound)) {
    return "the norm of the error is " + number(std::sqrt(error_norm)) + ", not " + number(wanted.norm_bound);
  }
  return "";
}

// Scaled and rounded once: what a result must be if its sum is exact.
Wanted exactly(std::vector<double> sums, double scale, DType dtype) {
  for (double& sum : sums) sum = round_once(sum * scale, dtype);
  return {std::move(sums), {}, 0};
}

Wanted within_bounds(const Sums& sums, int64_t terms, DType dtype) {
  Wanted wanted = {sums.value, allowed_errors(sums, terms, dtype), 0};
  if (is_sixteen_bit(dtype)) return wanted;
  // Errors of many results do not add up in one direction: far less than what is allowed to each.
  double squares = 0;
  for (size_t i = 0; i < sums.value.size(); ++i) {
    const double typical =
        std::fabs(sums.value[i]) + sums.magnitude[i] / std::sqrt(double(std::max<int64_t>(terms, 1)));
    squares += typical * typical;
  }
  wanted.norm_bound = (dtype == DType::f32 ? 2e-6 : 1e-14) * std::sqrt(squares) + 0x1p-1000;
  return wanted;
}

// The activation of bounded sums. Its slope is nowhere above 1.13, and its own error is some units in the accumulator,
// or a very small share of its argument. tests/kernels/test_activations.py has the bounds of each.
Wanted activated(const Sums& sums, int64_t terms, DType dtype, Activation activation) {
  constexpr double kSlope = 1.13, kUnits = 48;
  const double share = dtype == DType::f64 ? 0x1p-50 : 0x1p-36;
  Wanted wanted = {sums.value, std::vector<double>(sums.value.size()), 0};
  const double unit = format(dtype).accumulator_unit * (dtype == DType::f64 ? 2 : 1);
  for (size_t i = 0; i < sums.value.size(); ++i) {
    const double right = textbook_activation(sums.value[i], activation);
    const double sum_error = double(std::min(terms, kChain) + 2) * unit * sums.magnitude[i];
    wanted.value[i] = right;
    // float64's exact values are themselves off by the condition of exp() and erfc().
    const double size = std::fabs(sums.value[i]);
    const double condition = dtype == DType::f64 ? kUnits + std::pow(size, 3) : kUnits;
    const double own = condition * unit * std::fabs(right) + share * size;
    // Infinities and NaN must be just those.
    wanted.allowed[i] = std::isfinite(right) ? kSlope * sum_error + own + half_unit(right, dtype) : 0;
  }
  return wanted;
}

// The kernels of one operation, dtype and layout on one shape and one set of data.
class Group {
 public:
  Group(const Options& options, const Shape& shape, const Form& form, uint64_t seed, Tally& tally)
      : options_(options), shape_(shape), form_(form), seed_(seed), tally_(tally) {
    for (size_t i = 0; i < options.kernels.size(); ++i) {
      const Kernel& kernel = *options.kernels[i];
      if (kernel.operation != form.operation || kernel.dtype != form.dtype || kernel.layout != form.layout) continue;
      if (kernel.supports(shape) == nullptr) members_.push_back(i);
    }
  }

  bool empty() const { return members_.empty(); }
  Activation activation() const { return form_.activation; }

  void compare(Check check, const Operands& operands, const Wanted& result, const std::optional<Wanted>& grad_bias) {
    const StoredOperands stored(form_, shape_, operands);
    for (const size_t member : members_) {
      const Kernel& kernel = *options_.kernels[member];
      const Writable memory(form_, shape_, kernel, stored);
      if (!run(check, member, memory, Pieces::whole)) continue;
      expect_defined(memory.result().data(), ptrdiff_t(memory.result().size()));
      if (const auto wrong = difference(memory.result(), form_.dtype, result); !wrong.empty()) {
        fail(check, kernel, "result: " + wrong);
      }
      if (!grad_bias) continue;
      if (const auto wrong = difference(*memory.grad_bias(), form_.dtype, *grad_bias); !wrong.empty()) {
        fail(check, kernel, "grad_bias: " + wrong);
      }
    }
  }

  void compare_partitions(const Operands& operands, bool pieces, bool threads) {
    const StoredOperands stored(form_, shape_, operands);
    for (const size_t member : members_) {
      const Kernel& kernel = *options_.kernels[member];
      const Writable once(form_, shape_, kernel, stored);
      if (!run(Check::partitions, member, once, Pieces::whole)) continue;
      for (const Pieces how : {Pieces::one_by_one, Pieces::reversed, Pieces::random}) {
        if (!pieces) break;
        const Writable memory(form_, shape_, kernel, stored);
        if (run(Check::partitions, member, memory, how)) same_bits(Check::partitions, kernel, once, memory, name(how));
      }
      if (threads) {
        const Writable memory(form_, shape_, kernel, stored);
        Plan plan;
        kernel.make_plan(shape_, plan);
        call_on_threads(kernel, plan, memory.buffers(), stages(kernel, plan, Pieces::random, 16), options_.threads);
        count(member);
        same_bits(Check::threads, kernel, once, memory, "on threads");
      }
    }
  }

 private:
  std::vector<Ranges> stages(const Kernel& kernel, const Plan& plan, Pieces pieces, int64_t chunks = 7) const {
    Random random(seed_, {uint64_t(pieces)});
    std::vector<Ranges> stages;
    for (const int64_t items : items_of(kernel, plan)) {
      stages.push_back(pieces == Pieces::random && items ? random_chunks(items, chunks, random)
                                                         : pieces_of(items, pieces, random));
    }
    return stages;
  }

  void count(size_t member) {
    ++tally_.calls;
    ++tally_.calls_of[member];
  }

  bool run(Check check, size_t member, const Writable& memory, Pieces pieces) {
    const Kernel& kernel = *options_.kernels[member];
    count(member);
    Plan plan;
    kernel.make_plan(shape_, plan);
    if (const auto fault = call(kernel, plan, memory.buffers(), memory.memory(), stages(kernel, plan, pieces))) {
      fail(check, kernel, fault->substr(std::strlen(kernel.name) + 2));
      return false;
    }
    if (const auto damage = memory.damage()) {
      fail(check, kernel, *damage);
      return false;
    }
    return true;
  }

  void same_bits(Check check, const Kernel& kernel, const Writable& once, const Writable& other, const char* how) {
    const auto same = [](const Guarded& a, const Guarded& b) { return std::memcmp(a.data(), b.data(), a.size()) == 0; };
    if (!same(once.result(), other.result())) fail(check, kernel, std::string("result changes when run ") + how);
    if (once.grad_bias() && !same(*once.grad_bias(), *other.grad_bias())) {
      fail(check, kernel, std::string("grad_bias changes when run ") + how);
    }
  }

  void fail(Check check, const Kernel& kernel, const std::string& what) {
    tally_.failures.push_back(std::string(kernel.name) + ": " + name(check) + ": " + what + " (buffers " +
                              name(form_.placement) + (form_.with_bias ? ", bias" : ", no bias") +
                              (form_.activation == Activation::none ? "" : std::string(", ") + name(form_.activation)) +
                              ")");
  }

  const Options& options_;
  const Shape& shape_;
  const Form form_;
  const uint64_t seed_;
  Tally& tally_;
  std::vector<size_t> members_;
};

Operands scaled(Operands operands, Operation operation, double scale) {
  auto& images = operation == Operation::forward ? operands.input : operands.grad_output;
  for (double& value : images) value *= scale;
  for (double& value : operands.bias) value *= scale;
  return operands;
}

constexpr Activation kActivations[] = {Activation::relu, Activation::relu6, Activation::hardswish,
                                       Activation::silu, Activation::gelu,  Activation::gelu_tanh};
constexpr Operation kOperations[] = {Operation::forward, Operation::grad_input, Operation::grad_weight};
constexpr DType kDTypes[] = {DType::f32, DType::f64, DType::bf16, DType::f16};
constexpr Layout kLayouts[] = {Layout::nchw, Layout::nhwc};
constexpr Placement kPlacements[] = {Placement::front, Placement::back, Placement::inside};

}  // namespace

const char* name(Check check) {
  static constexpr const char* names[] = {"exact",       "scaled",     "special", "bounded",
                                          "activations", "partitions", "threads"};
  return names[int(check)];
}

void check_shape(const Options& options, const Shape& shape, uint64_t seed, Tally& tally) {
  const auto wants = [&](Check check) {
    return std::find(options.checks.begin(), options.checks.end(), check) != options.checks.end();
  };
  tally.calls_of.resize(options.kernels.size());
  Problem integers(shape, Data::integers, seed), special(shape, Data::special, seed);
  Problem larger(shape, Data::larger, seed);
  Problem normal(shape, Data::normal, seed), eight_bits(shape, Data::eight_bits, seed);

  for (const Operation operation : kOperations) {
    for (const DType dtype : kDTypes) {
      for (const Layout layout : kLayouts) {
        // Every check of every group draws for itself where its buffers lie and whether there is a bias.
        const auto with_group = [&](Check check, int64_t number, auto use) {
          Random random(seed,
                        {uint64_t(check), uint64_t(number), uint64_t(operation), uint64_t(dtype), uint64_t(layout)});
          const bool each = options.all_placements && check == Check::exact;
          const Placement drawn = kPlacements[random.between(0, 2)];
          const bool with_bias = operation != Operation::grad_input && random.chance(2);
          for (const Placement placement : kPlacements) {
            if (!each && placement != drawn) continue;
            Form form = {operation, dtype, layout, placement,
                         (with_bias != (placement == Placement::front)) && operation != Operation::grad_input};
            if (check == Check::activations) form.activation = kActivations[random.between(0, 5)];
            Group group(options, shape, form, random.next(), tally);
            if (!group.empty()) use(group, form.with_bias);
          }
        };
        const auto in_order = [&](Wanted wanted) {
          wanted.value = result_in_layout(wanted.value, operation, layout, shape);
          if (!wanted.allowed.empty()) wanted.allowed = result_in_layout(wanted.allowed, operation, layout, shape);
          return wanted;
        };
        const auto compare_exactly = [&](Check check, int64_t number, Problem& problem, double factor) {
          with_group(check, number, [&](Group& group, bool with_bias) {
            const Expected& expected = problem.expected(operation, with_bias);
            std::optional<Wanted> grad_bias;
            if (expected.grad_bias) grad_bias = exactly(expected.grad_bias->value, factor, dtype);
            group.compare(check, factor == 1 ? problem.operands() : scaled(problem.operands(), operation, factor),
                          in_order(exactly(expected.result.value, factor, dtype)), grad_bias);
          });
        };

        if (wants(Check::exact)) compare_exactly(Check::exact, 0, integers, 1);
        if (wants(Check::exact) && is_sixteen_bit(dtype)) compare_exactly(Check::exact, 1, larger, 1);
        if (wants(Check::special)) compare_exactly(Check::special, 0, special, 1);
        if (wants(Check::scaled)) {
          for (const bool huge : {false, true}) compare_exactly(Check::scaled, huge, integers, scale(dtype, huge));
        }
        Problem& digits = is_sixteen_bit(dtype) ? eight_bits : normal;
        if (wants(Check::bounded)) {
          with_group(Check::bounded, 0, [&](Group& group, bool with_bias) {
            const Expected& expected = digits.expected(operation, with_bias);
            std::optional<Wanted> grad_bias;
            if (expected.grad_bias) grad_bias = within_bounds(*expected.grad_bias, expected.terms, dtype);
            group.compare(Check::bounded, digits.operands(),
                          in_order(within_bounds(expected.result, expected.terms, dtype)), grad_bias);
          });
        }
        if (wants(Check::activations) && operation == Operation::forward) {
          for (Problem* problem : {&special, &digits}) {
            with_group(Check::activations, problem == &special, [&](Group& group, bool with_bias) {
              const Expected& expected = problem->expected(operation, with_bias);
              group.compare(Check::activations, problem->operands(),
                            in_order(activated(expected.result, expected.terms, dtype, group.activation())), {});
            });
          }
        }
        if (wants(Check::partitions) || wants(Check::threads)) {
          with_group(Check::partitions, 0, [&](Group& group, bool) {
            group.compare_partitions(digits.operands(), wants(Check::partitions), wants(Check::threads));
          });
        }
      }
    }
  }
}

}  // namespace dwconv::test
