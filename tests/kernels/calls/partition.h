// In which ranges, and in which order, the items of a stage run.
#pragma once
#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "random.h"

namespace dwconv::test {

using Ranges = std::vector<std::pair<int64_t, int64_t>>;

enum class Partition { whole, one_by_one, reversed, random, other_random };
constexpr Partition kPartitions[] = {Partition::whole, Partition::one_by_one, Partition::reversed, Partition::random,
                                     Partition::other_random};

inline const char* name(Partition partition) {
  constexpr const char* names[] = {"whole", "one by one", "reversed", "in random chunks", "in other random chunks"};
  return names[int(partition)];
}

// Chunks of random length in random order, at most `most` + 1 of them.
inline Ranges random_chunks(int64_t items, int64_t most, Random& random) {
  std::vector<int64_t> cuts = {0, items};
  for (int64_t i = 0; i < std::min(items, most); ++i) cuts.push_back(random.between(0, items));
  std::sort(cuts.begin(), cuts.end());
  Ranges ranges;
  for (size_t i = 1; i < cuts.size(); ++i) ranges.emplace_back(cuts[i - 1], cuts[i]);
  for (size_t i = ranges.size(); i > 1; --i)
    std::swap(ranges[i - 1], ranges[size_t(random.between(0, int64_t(i) - 1))]);
  return ranges;
}

// Covers [0, items) once. No range where there is no item.
inline Ranges ranges_of(int64_t items, Partition partition, Random& random, int64_t most_chunks = 7) {
  if (items == 0) return {};
  if (partition == Partition::whole) return {{0, items}};
  if (partition == Partition::random || partition == Partition::other_random) {
    return random_chunks(items, most_chunks, random);
  }
  Ranges ranges;
  for (int64_t i = 0; i < items; ++i) ranges.emplace_back(i, i + 1);
  if (partition == Partition::reversed) std::reverse(ranges.begin(), ranges.end());
  return ranges;
}

}  // namespace dwconv::test
