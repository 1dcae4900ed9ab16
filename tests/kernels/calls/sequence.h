// What a call of an operation of sequences is given beside Buffers (struct Sequence of csrc/kernel.h), and where its
// operands lie.
#pragma once
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "form.h"
#include "random.h"

namespace dwconv::test {

// Where the numbers of an operand (images, C, positions) lie that need not be dense. The images of a cache are its rows.
struct Places {
  int64_t images, channels, positions;
  int64_t image_step, channel_step, position_step;

  // Numbers from the first to the last one, with all between them.
  int64_t extent() const;
  // Calls each(place among the numbers, index in memory), in the order of (image, channel, position).
  template <class Each>
  void for_each(Each each) const {
    size_t from = 0;
    for (int64_t n = 0; n < images; ++n) {
      for (int64_t c = 0; c < channels; ++c) {
        for (int64_t p = 0; p < positions; ++p) {
          each(from++, size_t(n * image_step + c * channel_step + p * position_step));
        }
      }
    }
  }
};

// Of the buffer of that name; nothing if it is dense, as all are of other operations.
std::optional<Places> places_of(const std::string& name, const Form& form, const Shape& s);

// Numbers in memory, and NaN between them.
std::vector<double> spread(const std::vector<double>& values, const Places& places);

// What an operation of sequences is given beside a bias, and how its operands lie.
void draw_sequence(Form& form, const Shape& s, Random& random);
// The same in words, for failures; none for other operations.
std::string sequence_text(const Form& form);

// `pointer` gives where the buffer of a name lies, null if there is none.
Sequence to_sequence(const Form& form, const Shape& s, const std::function<void*(const char*)>& pointer);

}  // namespace dwconv::test
