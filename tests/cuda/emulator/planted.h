// Kernels with one planted bug each, and the same kernels without it, to prove that the emulator still sees each kind.
#pragma once
#include <string>
#include <vector>

namespace dwconv::test {

// The names of the bugs. A name with "sound_" before it is the same kernel without the bug.
std::vector<std::string> planted_bugs();

// Runs one in the present order of threads: nullptr, or what the emulator said, or that the results are wrong. Under a
// sanitizer the process may end instead.
const char* run_planted(const char* name);

}  // namespace dwconv::test
