// checker: every kernel of the registry against the textbook, on guarded memory. No torch, no Python.
//
// `checker --help` says what it takes. docs/reliability.md says what it catches.
#include <fnmatch.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fstream>
#include <stdexcept>
#include <string>

#include "../calls/call.h"
#include "bench.h"
#include "checks.h"
#include "cpu/registry.h"
#include "names.h"
#include "planted.h"
#include "textbook.h"

#ifndef DWCONV_ROOT
#define DWCONV_ROOT "."
#endif

using namespace dwconv;
using namespace dwconv::test;

namespace {

constexpr const char* kHelp = R"(checker: every kernel against the textbook, on guarded memory

  --cases FILE       what to run, as tests/kernels/cases.py writes it (default build/checker/cases.csv)
  --named PATTERN    only cases whose name matches, with * and ?: layers, edges and random-0, random-1...
  --shape 15,NUMBERS only this shape: the fields of struct Shape (csrc/shape.h)
  --kind KIND        of that shape: depthwise (default), dense, channelwise, batch_norm, pointwise or sequence
  --seed N           of that shape (default 0): what is random follows from it
  --kernel PATTERN   only kernels whose name matches (may be repeated)
  --checks LIST      of exact,scaled,special,bounded,activations,partitions,threads (default: all but threads)
  --threads N        threads of the check of that name (default 3)
  --all              fail unless each kernel chosen has run
  --list             the kernels, best first, and nothing else
  --bench            time kernels instead; --time seconds for each (default 0.2)
  --planted          the kernels with planted faults instead of the registry's
TORCH_DWCONV_ISA caps the instruction set. The exit status is 1 if something failed.
)";

struct Arguments {
  std::vector<std::string> kernels;
  std::string checks = "exact,scaled,special,bounded,activations,partitions";
  std::string cases = DWCONV_ROOT "/build/checker/cases.csv", named = "*", shape, kind = "depthwise";
  uint64_t seed = 0;
  double time = 0.2;
  int threads = 3;
  bool all = false, list = false, bench = false, planted = false;
};

Arguments parse(int argc, char** argv) {
  Arguments a;
  for (int i = 1; i < argc; ++i) {
    const std::string option = argv[i];
    const auto value = [&]() -> std::string {
      if (i + 1 >= argc) throw std::runtime_error(option + " wants a value");
      return argv[++i];
    };
    if (option == "--cases")
      a.cases = value();
    else if (option == "--named")
      a.named = value();
    else if (option == "--shape")
      a.shape = value();
    else if (option == "--kind")
      a.kind = value();
    else if (option == "--seed")
      a.seed = std::stoull(value());
    else if (option == "--kernel")
      a.kernels.push_back(value());
    else if (option == "--checks")
      a.checks = value();
    else if (option == "--threads")
      a.threads = std::stoi(value());
    else if (option == "--time")
      a.time = std::stod(value());
    else if (option == "--all")
      a.all = true;
    else if (option == "--list")
      a.list = true;
    else if (option == "--bench")
      a.bench = true;
    else if (option == "--planted")
      a.planted = true;
    else if (option == "--help")
      std::fputs(kHelp, stdout), std::exit(0);
    else
      throw std::runtime_error("unknown option " + option + "; --help lists them");
  }
  return a;
}

bool matches(const std::string& pattern, const std::string& name) {
  return fnmatch(pattern.c_str(), name.c_str(), 0) == 0;
}

std::vector<const Kernel*> chosen_kernels(const Arguments& a) {
  std::vector<const Kernel*> kernels;
  const auto choose = [&](KernelList list) {
    for (const Kernel& kernel : list) {
      bool wanted = a.kernels.empty();
      for (const std::string& pattern : a.kernels) wanted = wanted || matches(pattern, kernel.name);
      if (wanted) kernels.push_back(&kernel);
    }
  };
  if (a.planted) {
    choose(planted_kernels());
    choose(planted_block_kernels());
    choose(planted_training_kernels());
    choose(planted_sequence_kernels());
  } else {
    choose(active_kernels());
  }
  if (kernels.empty()) throw std::runtime_error("no kernel of that name: --list shows them");
  return kernels;
}

std::vector<Check> chosen_checks(const std::string& list) {
  std::vector<Check> checks;
  std::string rest = list;
  while (!rest.empty()) {
    const std::string word = rest.substr(0, rest.find(','));
    rest.erase(0, word.size() + 1);
    const size_t before = checks.size();
    for (const Check check : kChecks) {
      if (word == name(check)) checks.push_back(check);
    }
    if (checks.size() == before) throw std::runtime_error("no check of the name " + word + "; --help lists them");
  }
  return checks;
}

// Lines of name, seed, kind and the 15 fields of Shape, after a head line.
std::vector<Case> chosen_cases(const Arguments& a) {
  if (!a.shape.empty()) return {{"shape", a.seed, parse_kind(a.kind), parse_shape(a.shape)}};
  std::ifstream file(a.cases);
  if (!file) throw std::runtime_error("cannot read " + a.cases);
  std::vector<Case> cases;
  std::string line;
  std::getline(file, line);
  while (std::getline(file, line)) {
    const size_t name = line.find(','), seed = line.find(',', name + 1), kind = line.find(',', seed + 1);
    if (kind == std::string::npos) throw std::runtime_error(a.cases + " has a line that is no case: " + line);
    Case read = {line.substr(0, name), std::stoull(line.substr(name + 1)),
                 parse_kind(line.substr(seed + 1, kind - seed - 1)), parse_shape(line.substr(kind + 1))};
    if (matches(a.named, read.name)) cases.push_back(std::move(read));
  }
  if (cases.empty()) throw std::runtime_error("no case of that name in " + a.cases);
  return cases;
}

double seconds_since_start() {
  static const auto start = std::chrono::steady_clock::now();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Runs everything asked for, with failures as they come; the exit status.
int check(const Arguments& a) {
  const Options options = {chosen_kernels(a), chosen_checks(a.checks), textbook, a.threads};
  const std::vector<Case> cases = chosen_cases(a);
  constexpr size_t kShown = 20;
  Tally tally;
  tally.calls_of.resize(options.kernels.size());
  size_t failed = 0, ran = 0;
  for (; ran < cases.size() && failed <= kShown; ++ran) {
    tally.failures.clear();
    try {
      check_shape(options, cases[ran].kind, cases[ran].shape, cases[ran].seed, tally);
    } catch (const PlanFault& fault) {
      tally.failures.push_back(fault.what());
    }
    for (const std::string& failure : tally.failures) {
      if (++failed > kShown) break;
      const std::string kernel = failure.substr(0, failure.find(':'));
      std::printf("FAILED %s: %s\n  again: --seed %llu --kind %s --shape %s --kernel %s%s\n", cases[ran].name.c_str(),
                  failure.c_str(), static_cast<unsigned long long>(cases[ran].seed), test::name(cases[ran].kind),
                  to_text(cases[ran].shape).c_str(), kernel.c_str(), a.planted ? " --planted" : "");
      std::fflush(stdout);
    }
  }
  if (ran < cases.size()) std::printf("... given up after so many\n");

  size_t idle = 0;
  for (size_t i = 0; i < options.kernels.size(); ++i) {
    if (tally.calls_of[i]) continue;
    ++idle;
    if (a.all) std::printf("FAILED %s: has never run, no shape was for it\n", options.kernels[i]->name);
  }
  std::printf("%s: %zu kernels up to %s, %zu cases, %lld calls, %.1f s; %zu kernels idle\n",
              failed ? "FAILED" : "passed", options.kernels.size(), name(active_isa()), ran,
              static_cast<long long>(tally.calls), seconds_since_start(), idle);
  return failed || (a.all && idle) ? 1 : 0;
}

}  // namespace

int main(int argc, char** argv) {
  seconds_since_start();
  try {
    const Arguments a = parse(argc, argv);
    if (a.list) {
      for (const Kernel* kernel : chosen_kernels(a)) std::puts(kernel->name);
      return 0;
    }
    if (!a.bench) return check(a);
    bench(chosen_kernels(a), chosen_cases(a), a.time);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "checker: %s\n", error.what());
    return 2;
  }
}
