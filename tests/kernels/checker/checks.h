// What is checked of every kernel on one shape. Failures come back as lines of text.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "memory.h"
#include "problem.h"

namespace dwconv::test {

//   exact       integers: each result is the right one, rounded once
//   scaled      the same scaled to subnormal and to huge numbers: nothing is flushed, nothing overflows early
//   special     NaN and infinities reach exactly the results that the textbook says
//   bounded     numbers with all their digits, within what the order of summation may lose
//   activations forward followed by each activation, on special values and on random ones
//   partitions  whatever the pieces and the order of the work, the bits are those of one piece
//   threads     the same with several threads at once
enum class Check { exact, scaled, special, bounded, activations, partitions, threads };
constexpr Check kChecks[] = {Check::exact,       Check::scaled,     Check::special, Check::bounded,
                             Check::activations, Check::partitions, Check::threads};
const char* name(Check check);

struct Options {
  std::vector<const Kernel*> kernels;
  std::vector<Check> checks;
  bool all_placements = false;  // for the exact check; otherwise each check draws one
  int threads = 3;
};

struct Tally {
  int64_t calls = 0;
  std::vector<int64_t> calls_of;  // by kernel of Options
  std::vector<std::string> failures;
};

// Runs the checks on one shape. All that is random follows from the seed, whichever kernels and checks are chosen.
void check_shape(const Options& options, const Shape& shape, uint64_t seed, Tally& tally);

}  // namespace dwconv::test
