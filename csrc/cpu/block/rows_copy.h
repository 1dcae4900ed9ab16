// Rows of an image in any layout, copied channels last between borders of zeros.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>

namespace dwconv {

// Where the elements of an image are: distances in elements.
struct Strides {
  int64_t image, channel, row, pixel;
};

// Rows [begin, end) of a padded image, which has `top` rows of zeros first and `left` and `right` columns beside.
struct RowsCopy {
  int64_t channels, height, width;  // of the source
  int64_t top, left, right;
  Strides from;

  template <class Bits>
  void run(const void* source, void* result, int64_t begin, int64_t end) const {
    const Bits* image = static_cast<const Bits*>(source);
    Bits* to = static_cast<Bits*>(result);
    const int64_t row_size = (left + width + right) * channels;
    for (int64_t row = begin; row < end; ++row, to += row_size) {
      const int64_t h = row - top;
      if (h < 0 || h >= height) {
        std::fill_n(to, row_size, Bits(0));
        continue;
      }
      std::fill_n(to, left * channels, Bits(0));
      copy_row(image + h * from.row, to + left * channels);
      std::fill_n(to + (left + width) * channels, right * channels, Bits(0));
    }
  }

 private:
  template <class Bits>
  void copy_row(const Bits* row, Bits* to) const {
    if (from.channel == 1 && from.pixel == channels) {
      std::memcpy(to, row, size_t(width * channels) * sizeof(Bits));
    } else if (channels == 3) {  // an image as it comes from a file
      const Bits *a = row, *b = row + from.channel, *c = row + 2 * from.channel;
      for (int64_t w = 0; w < width; ++w, to += 3) {
        const Bits pair[2] = {a[w * from.pixel], b[w * from.pixel]};
        std::memcpy(to, pair, sizeof pair);  // one store
        to[2] = c[w * from.pixel];
      }
    } else {
      constexpr int64_t kTogether = 16;  // channels whose lines stay in L1 while a row of pixels goes by
      for (int64_t first = 0; first < channels; first += kTogether) {
        const int64_t last = std::min(channels, first + kTogether);
        for (int64_t w = 0; w < width; ++w) {
          for (int64_t c = first; c < last; ++c) to[w * channels + c] = row[c * from.channel + w * from.pixel];
        }
      }
    }
  }
};

}  // namespace dwconv
