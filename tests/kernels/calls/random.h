// Random numbers that are the same everywhere for the same seed, which std's distributions are not.
#pragma once
#include <cstdint>
#include <initializer_list>

namespace dwconv::test {

// splitmix64 (Steele, Lea and Flood, 2014).
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  // A stream of its own for every combination of the keys, whatever else was drawn.
  Random(uint64_t seed, std::initializer_list<uint64_t> keys) : state_(seed) {
    for (uint64_t key : keys) state_ = next() ^ (key * 0x9e3779b97f4a7c15u);
  }

  uint64_t next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }

  // lo <= result <= hi
  int64_t between(int64_t lo, int64_t hi) { return lo + int64_t(next() % uint64_t(hi - lo + 1)); }
  bool chance(int64_t one_in) { return between(1, one_in) == 1; }
  double unit() { return double(next() >> 11) * 0x1p-53; }  // [0, 1)

  template <class T>
  T pick(std::initializer_list<T> values) {
    return values.begin()[between(0, int64_t(values.size()) - 1)];
  }

 private:
  uint64_t state_;
};

}  // namespace dwconv::test
