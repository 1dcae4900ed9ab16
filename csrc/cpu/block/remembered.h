// What sizes decide, kept for the next call with the same ones.
#pragma once
#include <cstring>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "step.h"

namespace dwconv {

// Numbers that tell calls apart.
class Key {
 public:
  void add(std::initializer_list<int64_t> numbers) { numbers_.insert(numbers_.end(), numbers); }
  void add(const std::vector<Step>& steps, double epsilon) {
    int64_t bits;
    std::memcpy(&bits, &epsilon, sizeof bits);
    add({int64_t(steps.size()), bits});
    for (const Step& s : steps) {
      add({int64_t(s.kind), int64_t(s.activation), s.channels, s.kernel_h, s.kernel_w, s.stride_h, s.stride_w});
      add({s.dilation_h, s.dilation_w, s.pad_top, s.pad_left, s.pad_bottom, s.pad_right, int64_t(s.gate)});
    }
  }
  bool operator==(const Key& other) const { return numbers_ == other.numbers_; }
  uint64_t hash() const {
    uint64_t hash = 1469598103934665603u;  // FNV-1a
    for (int64_t number : numbers_) hash = (hash ^ uint64_t(number)) * 1099511628211u;
    return hash ^ hash >> 32;
  }

 private:
  std::vector<int64_t> numbers_;
};

// Up to `places` objects, shared by all threads. A new one takes the place of another with the same hash.
template <class Object, size_t places>
class Remembered {
 public:
  template <class Make>
  std::shared_ptr<const Object> find(Key key, Make make) {
    Place& place = places_[key.hash() % places];
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (place.object && place.key == key) return place.object;
    }
    std::shared_ptr<const Object> object = make();
    const std::lock_guard<std::mutex> lock(mutex_);
    place.key = std::move(key), place.object = object;
    return object;
  }

 private:
  struct Place {
    Key key;
    std::shared_ptr<const Object> object;
  };
  std::mutex mutex_;
  std::vector<Place> places_ = std::vector<Place>(places);
};

}  // namespace dwconv
