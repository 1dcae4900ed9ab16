// checker: every kernel of the registry against the textbook, on guarded memory. No torch, no Python.
//
// `checker --help` says what it takes. docs/reliability.md says what it catches.
#include <fnmatch.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <string>

#include "../planted.h"
#include "bench.h"
#include "checks.h"
#include "cpu/registry.h"
#include "names.h"
#include "shapes.h"

#ifndef DWCONV_ROOT
#define DWCONV_ROOT "."
#endif

using namespace dwconv;
using namespace dwconv::test;

namespace {

constexpr const char* kHelp = R"(checker: every kernel against the textbook, on guarded memory

  --kernel PATTERN  only kernels whose name matches, with * and ? (may be repeated)
  --checks LIST      of exact,scaled,special,bounded,activations,partitions,threads (default: all but threads)
  --seed N           what is random follows from it (default 0)
  --named PATTERN    the named shapes to run: real layers cropped, and those of --edges (default *; '' for none)
  --shapes N         random shapes after those (default 100); shape i is the first one of seed + i
  --time SECONDS     more random shapes, until so much time has passed
  --shape 15,NUMBERS only this shape: the fields of struct Shape (csrc/shape.h)
  --max-work N       largest number of multiply-adds of a shape (default 300000)
  --threads N        threads of the check of that name (default 3)
  --all              fail unless each kernel chosen has run
  --list             the kernels, best first, and nothing else
  --bench            time kernels instead: whole layers (--named), or a --shape; --time for each (default 0.2), --batch N
  --planted          the kernels with planted faults instead of the registry's
  --edges FILE       named shapes, as tests/kernels/test_checker.py writes them from shapes.py to build/checker
  --layers FILE      layers, as torch_dwconv/bench/layers.csv has them
TORCH_DWCONV_ISA caps the instruction set. The exit status is 1 if something failed.
)";

struct Arguments {
  std::vector<std::string> kernels;
  std::string checks = "exact,scaled,special,bounded,activations,partitions";
  std::string named = "*", shape;
  std::string edges, layers = DWCONV_ROOT "/torch_dwconv/bench/layers.csv";
  uint64_t seed = 0;
  int64_t shapes = 100, batch = 1;
  double time = 0, max_work = 300000;
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
    if (option == "--kernel")
      a.kernels.push_back(value());
    else if (option == "--checks")
      a.checks = value();
    else if (option == "--seed")
      a.seed = std::stoull(value());
    else if (option == "--named")
      a.named = value();
    else if (option == "--shapes")
      a.shapes = std::stoll(value());
    else if (option == "--time")
      a.time = std::stod(value());
    else if (option == "--shape")
      a.shape = value();
    else if (option == "--max-work")
      a.max_work = std::stod(value());
    else if (option == "--threads")
      a.threads = std::stoi(value());
    else if (option == "--batch")
      a.batch = std::stoll(value());
    else if (option == "--edges")
      a.edges = value();
    else if (option == "--layers")
      a.layers = value();
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
  for (const Kernel& kernel : a.planted ? planted_kernels() : active_kernels()) {
    bool wanted = a.kernels.empty();
    for (const std::string& pattern : a.kernels) wanted = wanted || matches(pattern, kernel.name);
    if (wanted) kernels.push_back(&kernel);
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

std::vector<NamedShape> named_shapes(const Arguments& a) {
  if (!a.shape.empty()) return {{"shape", parse_shape(a.shape)}};
  std::vector<NamedShape> shapes;
  const auto add = [&](const NamedShape& named, bool crop) {
    if (!matches(a.named, named.name)) return;
    shapes.push_back({named.name, crop ? cropped(named.shape, a.max_work) : named.shape});
  };
  if (!a.bench && !a.edges.empty()) {
    for (const NamedShape& edge : read_shapes(a.edges)) add(edge, false);
  }
  for (const NamedShape& layer : read_layers(a.layers, a.batch)) add(layer, !a.bench);
  return shapes;
}

double seconds_since_start() {
  static const auto start = std::chrono::steady_clock::now();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Runs everything asked for, with failures as they come; the exit status.
int check(const Arguments& a) {
  Options options = {chosen_kernels(a), chosen_checks(a.checks), true, a.threads};
  Tally tally;
  tally.calls_of.resize(options.kernels.size());
  size_t failed = 0;
  const auto run = [&](const Shape& shape, uint64_t seed) {
    tally.failures.clear();
    check_shape(options, shape, seed, tally);
    constexpr size_t kShown = 20;
    for (const std::string& failure : tally.failures) {
      if (++failed > kShown) break;
      const std::string kernel = failure.substr(0, failure.find(':'));
      std::printf("FAILED %s\n  again: --seed %llu --shape %s --kernel %s%s\n", failure.c_str(),
                  static_cast<unsigned long long>(seed), to_text(shape).c_str(), kernel.c_str(),
                  a.planted ? " --planted" : "");
      std::fflush(stdout);
    }
    return failed <= kShown;
  };

  int64_t named = 0, random = 0;
  bool going = true;
  for (const NamedShape& shape : named_shapes(a)) {
    if (!a.planted && a.shape.empty() && shape.shape.work() > 20 * a.max_work) continue;
    if ((going = run(shape.shape, a.seed)), ++named; !going) break;
  }
  options.all_placements = false;
  for (; going && a.shape.empty() && (random < a.shapes || seconds_since_start() < a.time); ++random) {
    const uint64_t seed = a.seed + uint64_t(random);
    going = run(random_shape(Random(seed), a.max_work), seed);
  }
  if (!going) std::printf("... given up after so many\n");

  int idle = 0;
  for (size_t i = 0; i < options.kernels.size(); ++i) {
    if (tally.calls_of[i]) continue;
    ++idle;
    if (a.all) std::printf("FAILED %s: has never run, no shape was for it\n", options.kernels[i]->name);
  }
  std::printf(
      "%s: %zu kernels up to %s, %lld named and %lld random shapes from seed %llu, %lld calls, %.1f s; %d kernels "
      "idle\n",
      failed ? "FAILED" : "passed", options.kernels.size(), name(active_isa()), static_cast<long long>(named),
      static_cast<long long>(random), static_cast<unsigned long long>(a.seed), static_cast<long long>(tally.calls),
      seconds_since_start(), idle);
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
    bench(chosen_kernels(a), named_shapes(a), a.time > 0 ? a.time : 0.2);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "checker: %s\n", error.what());
    return 2;
  }
}
