// Threads, as a block sees them: it does not know PyTorch.
#pragma once
#include <cstdint>
#include <functional>

namespace dwconv {

class Workers {
 public:
  using Range = std::function<void(int64_t begin, int64_t end)>;
  virtual int64_t count() const = 0;
  // Calls range for parts of [0, items) that cover it, on as many threads as there are.
  virtual void share(int64_t items, const Range& range) const = 0;

 protected:
  ~Workers() = default;
};

}  // namespace dwconv
