#include "checks.h"

#include <algorithm>
#include <cstring>
#include <list>
#include <sstream>
#include <stdexcept>

#include "../calls/random.h"
#include "compare.h"
#include "textbook.h"

namespace dwconv::test {
namespace {

const char* name(Activation activation) {
  static constexpr const char* names[] = {"none", "relu",      "relu6",       "hardswish", "silu",
                                          "gelu", "gelu_tanh", "hardsigmoid", "sigmoid"};
  return names[int(activation)];
}

// A power of two that takes the integers to the smallest numbers of a dtype, and one that takes them near its largest.
double scale(DType dtype, bool huge) {
  static constexpr double scales[][2] = {
      {0x1p-149, 0x1p110}, {0x1p-1074, 0x1p1000}, {0x1p-133, 0x1p110}, {0x1p-24, 0x1p12}};
  return scales[int(dtype)][huge];
}

// Whether subnormal numbers are zero for the kernel: its instruction has no other way (csrc/cpu/dense, tile.h and amx.h).
bool flushes_subnormals(const Kernel& kernel) {
  return kernel.operation == Operation::dense &&
         (kernel.method == std::string("pairs") || kernel.method == std::string("amx"));
}

bool reads(Operation operation, std::vector<double> Operands::* values) {
  const std::vector<Input> all = inputs(operation, {true, true});
  return std::any_of(all.begin(), all.end(), [&](const Input& input) { return input.values == values; });
}

// Scales every result: one of the two factors of each product, and what is added.
Operands scaled(Operands operands, Operation operation, double scale) {
  const bool by_gradient = reads(operation, &Operands::grad_output);
  const auto by = [scale](std::vector<double>& values) {
    for (double& value : values) value *= scale;
  };
  by(operands.bias), by(operands.residual);
  if (by_gradient) {
    by(operands.grad_output);
  } else {
    by(operands.input), by(operands.states), by(operands.cache);
  }
  return operands;
}

// Takes the integers to numbers that are small, but none of them subnormal, in bf16.
constexpr double kSmallNormal = 0x1p-120;

// The kernels of one operation, dtype and layout on one shape and one set of data.
class Group {
 public:
  Group(const Options& options, const Shape& shape, Check check, const Form& form, uint64_t seed, Tally& tally)
      : options_(options), shape_(shape), check_(check), form_(form), seed_(seed), tally_(tally) {
    for (size_t i = 0; i < options.kernels.size(); ++i) {
      const Kernel& kernel = *options.kernels[i];
      if (kernel.operation != form.operation || kernel.dtype != form.dtype || kernel.layout != form.layout) continue;
      if (kernel.supports(shape) == nullptr) members_.push_back(i);
    }
  }

  bool empty() const { return members_.empty(); }
  void leave_out_flushing() {
    const auto flushes = [&](size_t i) { return flushes_subnormals(*options_.kernels[i]); };
    members_.erase(std::remove_if(members_.begin(), members_.end(), flushes), members_.end());
  }
  const Form& form() const { return form_; }

  // `wanted` gives what an answer must be where it is stored in a dtype.
  template <class Want>
  void compare(const Operands& operands, Want wanted) {
    const StoredOperands stored(form_, shape_, operands);
    std::vector<Wanted> all;
    for (const Output& output : outputs(form_.operation, form_.given)) {
      all.push_back(wanted(output.answer, stored_as(output.in_accumulator, form_.dtype)));
    }
    for (const size_t member : members_) {
      const Call call(*options_.kernels[member], shape_);
      const Writable memory(form_, shape_, call, stored);
      if (!run(member, call, memory, Partition::whole)) continue;
      for (size_t i = 0; i < all.size(); ++i) {
        const Output& output = memory.written()[i];
        const Guarded& got = memory.output(output);
        expect_defined(got.data(), ptrdiff_t(got.size()));
        const auto wrong = difference(memory.values(output), all[i]);
        if (!wrong.empty()) fail(call.kernel(), output.name + (": " + wrong));
      }
    }
  }

  void compare_partitions(const Operands& operands) {
    const StoredOperands stored(form_, shape_, operands);
    for (const size_t member : members_) {
      const Call call(*options_.kernels[member], shape_);
      const Writable once(form_, shape_, call, stored);
      if (!run(member, call, once, Partition::whole)) continue;
      for (const Partition partition : kPartitions) {
        const bool on_threads = check_ == Check::threads;
        if ((partition == Partition::whole) != on_threads) continue;
        const Writable memory(form_, shape_, call, stored);
        if (on_threads) {
          const auto ranges = call.ranges(Partition::random, seed_, 16);
          call.run_on_threads(memory.buffers(), ranges, options_.threads);
          count(member);
        } else if (!run(member, call, memory, partition)) {
          continue;
        }
        same_bits(call.kernel(), once, memory, on_threads ? "on threads" : test::name(partition));
      }
    }
  }

 private:
  void count(size_t member) {
    ++tally_.calls;
    ++tally_.calls_of[member];
  }

  bool run(size_t member, const Call& call, const Writable& memory, Partition partition) {
    count(member);
    const auto fault = call.run_guarded(memory.buffers(), memory.memory(), call.ranges(partition, seed_));
    const auto wrong = fault ? fault : memory.damage();
    if (wrong) fail(call.kernel(), *wrong);
    return !wrong;
  }

  void same_bits(const Kernel& kernel, const Writable& once, const Writable& other, const char* how) {
    for (const Output& output : once.written()) {
      const Guarded &a = once.output(output), &b = other.output(output);
      if (std::memcmp(a.data(), b.data(), a.size()) == 0) continue;
      fail(kernel, output.name + std::string(" changes when run ") + how);
    }
  }

  void fail(const Kernel& kernel, const std::string& what) {
    tally_.failures.push_back(
        std::string(kernel.name) + ": " + test::name(check_) + ": " + what + " (buffers " +
        test::name(form_.placement) + (form_.given.bias ? ", bias" : ", no bias") +
        (form_.given.residual ? ", residual" : "") + (form_.in_place ? ", in place" : "") + sequence_text(form_) +
        (form_.activation == Activation::none ? "" : std::string(", ") + name(form_.activation)) + ")");
  }

  const Options& options_;
  const Shape& shape_;
  const Check check_;
  const Form form_;
  const uint64_t seed_;
  Tally& tally_;
  std::vector<size_t> members_;
};

// All the checks of one shape.
class Checks {
 public:
  Checks(const Options& options, Kind kind, const Shape& shape, uint64_t seed, Tally& tally)
      : options_(options), kind_(kind), shape_(shape), seed_(seed), tally_(tally) {}

  void run(Check check, Operation operation, DType dtype, Layout layout) {
    if (kind_ == Kind::batch_norm) return run_batch_norm(check, operation, dtype, layout);
    const Data digits = options_.data.value_or(is_sixteen_bit(dtype) ? Data::eight_bits : Data::normal);
    const auto on = [&](Data data, uint64_t number, double factor = 1) {
      with_groups(check, number, operation, dtype, layout, [&](Group& group) {
        if (factor == scale(dtype, false)) group.leave_out_flushing();
        if (!group.empty()) compare(group, check, data, factor);
      });
    };
    switch (check) {
      case Check::exact:
        on(Data::integers, 0);
        if (is_sixteen_bit(dtype)) on(Data::larger, 1);
        break;
      case Check::scaled:
        if (operation == Operation::layer_norm) break;
        on(Data::integers, 0, scale(dtype, false));
        on(Data::integers, 1, scale(dtype, true));
        if (operation == Operation::dense && dtype == DType::bf16) on(Data::integers, 2, kSmallNormal);
        break;
      case Check::special:
        on(Data::special, 0);
        if (reads(operation, &Operands::input)) on(Data::special_input, 1);
        if (reads(operation, &Operands::weight)) on(Data::special_weight, 2);
        if (reads(operation, &Operands::grad_output)) on(Data::special_grad_output, 3);
        break;
      case Check::activations:
        if (kind_ == Kind::channelwise || kind_ == Kind::pointwise) break;
        if (kind_ == Kind::depthwise && operation != Operation::forward) break;
        if (kind_ != Kind::sequence) on(Data::special, 1);
        on(digits, 0);
        break;
      case Check::bounded:
        // What layer_norm loses where numbers differ little for their size.
        if (operation == Operation::layer_norm && !is_sixteen_bit(dtype)) on(Data::offset, 1);
        [[fallthrough]];
      case Check::partitions:
      case Check::threads: on(digits, 0);
    }
  }

 private:
  static constexpr Placement kPlacements[] = {Placement::front, Placement::back, Placement::inside};

  Problem& problem(Data data) {
    return problems_.try_emplace(data, shape_, kind_, data, seed_, options_.oracle).first->second;
  }

  void compare(Group& group, Check check, Data data, double factor) {
    if (kind_ == Kind::sequence) return compare_sequence(group, check, data, factor);
    Problem& numbers = problem(data);
    const auto bounded = [&](Answer answer, DType dtype) {
      return within_bounds(numbers.values(answer), numbers.magnitudes(answer), numbers.terms(answer), dtype);
    };
    switch (check) {
      case Check::exact:
      case Check::special:
      case Check::scaled:
        if (group.form().operation == Operation::layer_norm) {
          group.compare(numbers.operands(), bounded);
        } else {
          group.compare(factor == 1 ? numbers.operands() : scaled(numbers.operands(), group.form().operation, factor),
                        [&](Answer answer, DType dtype) { return exactly(numbers.values(answer), factor, dtype); });
        }
        break;
      case Check::bounded: group.compare(numbers.operands(), bounded); break;
      case Check::activations: compare_activations(group, data); break;
      case Check::partitions:
      case Check::threads: group.compare_partitions(numbers.operands());
    }
  }

  void run_batch_norm(Check check, Operation operation, DType dtype, Layout layout) {
    const Data digits = options_.data.value_or(is_sixteen_bit(dtype) ? Data::eight_bits : Data::normal);
    const bool given = operation == Operation::batch_norm_eval || operation == Operation::batch_norm_eval_backward;
    const auto on = [&](Data data, uint64_t number) {
      with_groups(check, number, operation, dtype, layout, [&](Group& group) {
        const Operands& operands = of_form(data, group.form());
        if (check == Check::partitions || check == Check::threads) return group.compare_partitions(operands);
        group.compare(operands, [&](Answer answer, DType stored) {
          std::vector<double> values = options_.oracle(answer, shape_, operands);
          if (given && check != Check::bounded && check != Check::activations) {
            return exactly(std::move(values), 1, stored);
          }
          return within_units(values, batch_norm_magnitudes(answer, shape_, operands), kUnits, stored);
        });
      });
    };
    switch (check) {
      case Check::scaled: break;
      case Check::exact: on(Data::integers, 0); break;
      case Check::special:
        if (operation == Operation::batch_norm_eval) on(Data::special_input, 0);
        if (operation == Operation::batch_norm_eval_backward) on(Data::special_grad_output, 0);
        break;
      case Check::activations: on(Data::integers, 1); [[fallthrough]];
      case Check::bounded:
        // A mean that is large for the deviations.
        if (!given && !is_sixteen_bit(dtype)) on(Data::offset, 2);
        [[fallthrough]];
      case Check::partitions:
      case Check::threads: on(digits, 0);
    }
  }

  void compare_sequence(Group& group, Check check, Data data, double factor) {
    const Operands& operands = of_form(data, group.form());
    if (check == Check::partitions || check == Check::threads) return group.compare_partitions(operands);
    const Operands& given = of_forms_.emplace_back(scaled(operands, group.form().operation, factor));
    group.compare(given, [&](Answer answer, DType dtype) {
      const std::vector<double> values = options_.oracle(answer, shape_, operands);
      if (answer == Answer::sequence_step_cache || (check != Check::bounded && check != Check::activations)) {
        return exactly(values, factor, dtype);
      }
      const std::vector<double> magnitudes = sequence_magnitudes(answer, shape_, operands);
      const int64_t terms = problem(data).terms(answer);
      if (check == Check::bounded) return within_bounds(values, magnitudes, terms, dtype);
      return within_units(values, magnitudes, double(terms) + kUnits, dtype);
    });
  }

  // The operands as a form of BatchNorm or of sequences has them; they stay where they are, by which oracles know them.
  const Operands& of_form(Data data, const Form& form) {
    Operands& operands = of_forms_.emplace_back(problem(data).operands());
    operands.activation = form.activation;
    if (!form.given.bias) {
      if (kind_ == Kind::batch_norm) std::fill(operands.weight.begin(), operands.weight.end(), 1.0);
      std::fill(operands.bias.begin(), operands.bias.end(), 0.0);
    }
    if (!form.given.states) operands.states.clear();
    if (!form.given.reach) operands.reach.clear();
    if (!form.given.rows) operands.rows.clear();
    if (!form.given.begins) operands.begins.clear();
    return operands;
  }

  void compare_activations(Group& group, Data data) {
    Problem& numbers = problem(data);
    const Activation activation = group.form().activation;
    const bool selects = activation == Activation::relu || activation == Activation::relu6;
    group.compare(numbers.operands(), [&](Answer answer, DType dtype) {
      if (data != Data::special || !selects) return activated(numbers, answer, dtype, activation);
      // One of two exact numbers.
      std::vector<double> values = numbers.values(answer);
      for (double& value : values) value = textbook_activation(value, activation);
      return exactly(std::move(values), 1, dtype);
    });
  }

  // Every check of every group draws for itself where its buffers lie, whether there is a bias and whether a residual.
  template <class Use>
  void with_groups(Check check, uint64_t number, Operation operation, DType dtype, Layout layout, Use use) {
    Random random(seed_, {uint64_t(check), number, uint64_t(operation), uint64_t(dtype), uint64_t(layout)});
    const Placement drawn = kPlacements[random.between(0, 2)];
    const bool bias = random.chance(2);
    const auto placements = options_.placements.empty() ? std::vector<Placement>{drawn} : options_.placements;
    for (const Placement placement : placements) {
      const bool with_bias = options_.with_bias.value_or(bias != (placement == Placement::front));
      const bool has_bias = operation != Operation::grad_input && operation != Operation::pointwise_grad_input;
      Form form = {operation, dtype, layout, placement, {with_bias && has_bias, false}};
      if (kind_ == Kind::dense) form.given.residual = options_.with_residual.value_or(random.chance(2));
      if (kind_ == Kind::channelwise) form.given.bias = false;
      if (operation == Operation::channel_scale) form.in_place = random.chance(2);
      // Of forward those that depthwise_conv2d has: the gates are for blocks.
      const auto last = kind_ == Kind::dense ? Activation::sigmoid : Activation::gelu_tanh;
      const auto activation = Activation(random.between(1, int64_t(last)));
      if (check == Check::activations) form.activation = options_.activation.value_or(activation);
      if (kind_ == Kind::sequence) {
        draw_sequence(form, shape_, random);
        const bool of_any = check == Check::partitions || check == Check::threads;
        form.activation = check == Check::activations || (of_any && random.chance(2))
                              ? Activation::silu  // the only one
                              : Activation::none;
      }
      Group group(options_, shape_, check, form, random.next(), tally_);
      if (!group.empty()) use(group);
    }
  }

  const Options& options_;
  const Kind kind_;
  const Shape& shape_;
  const uint64_t seed_;
  Tally& tally_;
  std::map<Data, Problem> problems_;
  std::list<Operands> of_forms_;
};

}  // namespace

const char* name(Check check) {
  static constexpr const char* names[] = {"exact",       "scaled",     "special", "bounded",
                                          "activations", "partitions", "threads"};
  return names[int(check)];
}

void check_shape(const Options& options, Kind kind, const Shape& shape, uint64_t seed, Tally& tally) {
  tally.calls_of.resize(options.kernels.size());
  Checks checks(options, kind, shape, seed, tally);
  for (const Check check : options.checks) {
    for (int i = 0; i < kOperations; ++i) {
      const auto operation = Operation(i);
      if (kind_of(operation) != kind) continue;
      for (const DType dtype : {DType::f32, DType::f64, DType::bf16, DType::f16}) {
        for (const Layout layout : {Layout::nchw, Layout::nhwc}) checks.run(check, operation, dtype, layout);
      }
    }
  }
}

std::string to_text(const Shape& s) {
  std::string text;
  for (int64_t v : {s.N, s.C, s.M, s.H, s.W, s.KH, s.KW, s.OH, s.OW, s.stride_h, s.stride_w, s.dilation_h, s.dilation_w,
                    s.pad_top, s.pad_left}) {
    text += (text.empty() ? "" : ",") + std::to_string(v);
  }
  return text;
}

Shape parse_shape(const std::string& text) {
  std::vector<int64_t> v;
  std::istringstream stream(text);
  for (std::string field; std::getline(stream, field, ',');) v.push_back(std::stoll(field));
  if (v.size() != 15) throw std::runtime_error("a shape is 15 numbers, got " + text);
  return {v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8], v[9], v[10], v[11], v[12], v[13], v[14]};
}

Kind parse_kind(const std::string& word) {
  for (const Kind kind : kKinds) {
    if (word == name(kind)) return kind;
  }
  throw std::runtime_error("a kind is depthwise, dense, channelwise, batch_norm, pointwise or sequence, got " + word);
}

}  // namespace dwconv::test
