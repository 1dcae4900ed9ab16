// In which pieces and in which order, or on which threads, the items of a stage run.
#pragma once
#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

#include "../call.h"
#include "random.h"

namespace dwconv::test {

enum class Pieces { whole, one_by_one, reversed, random };

inline const char* name(Pieces pieces) {
  constexpr const char* names[] = {"whole", "one by one", "reversed", "in random chunks"};
  return names[int(pieces)];
}

// Chunks of random length in random order.
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

inline Ranges pieces_of(int64_t items, Pieces pieces, Random& random) {
  if (items == 0) return {};
  if (pieces == Pieces::whole) return {{0, items}};
  if (pieces == Pieces::random) return random_chunks(items, 7, random);
  constexpr int64_t kMany = 5000;  // beyond that the calls themselves would take the time
  const int64_t step = (items - 1) / kMany + 1;
  Ranges ranges;
  for (int64_t i = 0; i < items; i += step) ranges.emplace_back(i, std::min(items, i + step));
  if (pieces == Pieces::reversed) std::reverse(ranges.begin(), ranges.end());
  return ranges;
}

// Runs each stage on several threads, which take its ranges as they come. A fault here ends the program.
inline void call_on_threads(const Kernel& kernel, const Plan& plan, const Buffers& buffers,
                            const std::vector<Ranges>& stages, int threads) {
  for (size_t stage = 0; stage < stages.size(); ++stage) {
    std::atomic<size_t> next = 0, arrived = 0;
    const auto work = [&] {
      // Together, so that their work really overlaps. Relaxed, so that nothing but the kernel itself orders its memory.
      arrived.fetch_add(1, std::memory_order_relaxed);
      while (arrived.load(std::memory_order_relaxed) < size_t(threads)) std::this_thread::yield();
      for (;;) {
        const size_t i = next.fetch_add(1, std::memory_order_relaxed);
        if (i >= stages[stage].size()) return;
        kernel.run[stage](plan, buffers, stages[stage][i].first, stages[stage][i].second);
      }
    };
    std::vector<std::thread> pool;
    for (int i = 0; i < threads; ++i) pool.emplace_back(work);
    for (std::thread& thread : pool) thread.join();
  }
}

}  // namespace dwconv::test
