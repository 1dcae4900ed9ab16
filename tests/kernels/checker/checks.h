// What is checked of every kernel on one shape. Failures come back as lines of text.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "../calls/buffers.h"
#include "problem.h"

namespace dwconv::test {

//   exact       integers: each result is the right one, rounded once
//   scaled      the same scaled to subnormal and to huge numbers: nothing is flushed, nothing overflows early
//   special     NaN and infinities reach exactly the results that the right answers say
//   bounded     numbers with all their digits, within what the order of summation may lose
//   activations forward and dense followed by each activation, on special values and on random ones; sequences by theirs
//   partitions  whatever the ranges and the order of the work, the bits are those of one range
//   threads     the same with several threads at once
// BatchNorm is exact where mean and variance are given; of the batch it is held to what bounded does, and neither special
// nor scaled is for it.
// layer_norm has no exact results: exact and special hold it to what bounded does, NaN aside, and scaled is not for it.
enum class Check { exact, scaled, special, bounded, activations, partitions, threads };
constexpr Check kChecks[] = {Check::exact,       Check::scaled,     Check::special, Check::bounded,
                             Check::activations, Check::partitions, Check::threads};
const char* name(Check check);

struct Options {
  std::vector<const Kernel*> kernels;
  std::vector<Check> checks;
  Oracle oracle;
  int threads = 3;
  // What each check draws for itself where it is not given.
  std::vector<Placement> placements = {};
  std::optional<bool> with_bias = {};
  std::optional<bool> with_residual = {};
  std::optional<Activation> activation = {};
  std::optional<Data> data = {};  // of the checks on numbers with all their digits
};

struct Tally {
  int64_t calls = 0;
  std::vector<int64_t> calls_of;  // by kernel of Options
  std::vector<std::string> failures;
};

// Runs the checks of a kind's operations on one shape. All that is random follows from the seed, whichever kernels and
// checks are chosen.
void check_shape(const Options& options, Kind kind, const Shape& shape, uint64_t seed, Tally& tally);

// A shape that the checks run on, by the name and the seed that tests/kernels/cases.py gives it.
struct Case {
  std::string name;
  uint64_t seed;
  Kind kind;
  Shape shape;
};

// 15 numbers, the fields of Shape, with commas between.
std::string to_text(const Shape& shape);
Shape parse_shape(const std::string& numbers);  // throws std::runtime_error
Kind parse_kind(const std::string& word);       // so does this

}  // namespace dwconv::test
