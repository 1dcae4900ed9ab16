#include "shapes.h"

#include <algorithm>
#include <array>
#include <fstream>
#include <set>
#include <sstream>
#include <stdexcept>

namespace dwconv::test {
namespace {

using Numbers = std::array<int64_t, 15>;  // the fields of Shape, in their order

Shape to_shape(const Numbers& v) {
  return {v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8], v[9], v[10], v[11], v[12], v[13], v[14]};
}

std::vector<std::string> split(const std::string& line) {
  std::vector<std::string> fields;
  std::istringstream stream(line);
  for (std::string field; std::getline(stream, field, ',');) fields.push_back(field);
  return fields;
}

// The rows after the head line, each with `columns` fields.
std::vector<std::vector<std::string>> read_rows(const std::string& path, size_t columns) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error("cannot read " + path);
  std::vector<std::vector<std::string>> rows;
  std::string line;
  std::getline(file, line);
  while (std::getline(file, line)) {
    rows.push_back(split(line));
    if (rows.back().size() != columns) throw std::runtime_error(path + " has a row without its columns: " + line);
  }
  return rows;
}

// Size of the output of one dimension by nn.Conv2d's formula.
int64_t full(int64_t size, int64_t kernel, int64_t stride, int64_t dilation, int64_t before, int64_t after) {
  const int64_t span = size + before + after - (kernel - 1) * dilation - 1;
  return span < 0 ? 0 : span / stride + 1;
}

struct Dimension {
  int64_t size, kernel, out, stride, dilation, before;
};

// A size up to `largest`: often one next to a multiple of a vector width, often small, or anything.
int64_t random_size(Random& random, int64_t largest) {
  const int64_t near = random.pick<int64_t>({4, 8, 16, 32, 48, 64, 128}) + random.between(-1, 1);
  const int64_t small = random.between(1, 9), any = random.between(1, largest);
  return std::min(largest, random.pick({near, small, any}));
}

Dimension random_dimension(Random& random, int64_t kernel, int64_t stride, int64_t dilation, int64_t largest) {
  const int64_t reach = (kernel - 1) * dilation, same = reach / 2, size = random_size(random, largest);
  const int64_t before = random.pick({same, same, same, int64_t(0), random.between(0, reach + 3)});
  const int64_t after = random.pick({same, before, random.between(0, reach + 3)});
  const int64_t out = std::max<int64_t>(1, full(size, kernel, stride, dilation, before, after));
  return {size,   kernel,   random.pick({out, out, out, random.between(1, out), out + random.between(1, 5)}),
          stride, dilation, before};
}

Shape assemble(int64_t N, int64_t C, int64_t M, const Dimension& h, const Dimension& w) {
  return {N,     C,        M,        h.size,     w.size,     h.kernel, w.kernel, h.out,
          w.out, h.stride, w.stride, h.dilation, w.dilation, h.before, w.before};
}

// Any geometry at all.
Shape any_geometry(Random& random) {
  const int64_t square = random.pick<int64_t>({3, 3, 5, 7, random.between(1, 9)});
  const bool odd_one = random.chance(3), strides = random.chance(4), dilations = random.chance(5);
  const int64_t stride = random.pick<int64_t>({1, 1, 1, 2, 2}), dilation = random.pick<int64_t>({1, 1, 1, 1, 2});
  const auto axis = [&](int64_t largest) {
    return random_dimension(random, odd_one ? random.between(1, 9) : square, strides ? random.between(1, 4) : stride,
                            dilations ? random.between(1, 4) : dilation, largest);
  };
  const Dimension h = axis(40), w = axis(90);
  return assemble(random.pick<int64_t>({1, 1, 2, 3}), random_size(random, 70), random.pick<int64_t>({1, 1, 1, 2, 3}), h,
                  w);
}

// Maps of 1 to 20 pixels a side with channels enough to fill vectors.
Shape small_planes(Random& random) {
  const int64_t kernel = random.pick<int64_t>({3, 3, 5, 7, 2, 4, 9}), stride = random.pick<int64_t>({1, 1, 2});
  const int64_t largest = random.pick<int64_t>({7, 14, 20});
  // One time in three the sides differ by one in a single number, which kernels made for equal ones have to refuse.
  const int64_t odd = random.between(0, 8), other = kernel + (odd == 0), wider = stride + (odd == 1);
  const Dimension a = random_dimension(random, kernel, stride, 1, largest);
  const Dimension b = random_dimension(random, other, wider, 1 + (odd == 2), largest);
  const bool across = random.chance(2);
  const int64_t multiplier = random.pick<int64_t>({1, 1, 1, 1, 1, 2, 4, random.between(1, 40)});
  return assemble(random.between(1, 5), random.between(1, multiplier > 4 ? 9 : 150), multiplier, across ? a : b,
                  across ? b : a);
}

// 1xk and kx1 bands, and kernels of 9 to 31, even ones too.
Shape large_kernels(Random& random) {
  const int64_t kernel = random.between(9, 31),
                other = random.pick<int64_t>({1, 1, kernel, kernel, random.between(1, 31)});
  const bool across = random.chance(2);
  const Dimension h = random_dimension(random, across ? other : kernel, random.pick<int64_t>({1, 1, 1, 2}), 1, 40);
  const Dimension w = random_dimension(random, across ? kernel : other, random.pick<int64_t>({1, 1, 1, 2}), 1, 60);
  return assemble(random.between(1, 2), random_size(random, 40), random.pick<int64_t>({1, 1, 1, 2}), h, w);
}

// Rows of hundreds, so that unrolled loops repeat.
Shape wide_rows(Random& random) {
  const int64_t kernel = random.pick<int64_t>({3, 3, 5, 7}), stride = random.pick<int64_t>({1, 1, 2});
  const Dimension h = random_dimension(random, kernel, stride, 1, 9);
  const Dimension w = random_dimension(random, kernel, stride, 1, 600);
  return assemble(random.between(1, 2), random.between(1, 20), 1, h, w);
}

// Hundreds of channels, so that blocks of them repeat.
Shape many_channels(Random& random) {
  const int64_t kernel = random.pick<int64_t>({3, 3, 5, 7}), stride = random.pick<int64_t>({1, 1, 2});
  const Dimension h = random_dimension(random, kernel, stride, 1, 9);
  const Dimension w = random_dimension(random, kernel, stride, 1, 9);
  return assemble(random.between(1, 3), random.between(60, 700), random.pick<int64_t>({1, 1, 1, 2}), h, w);
}

}  // namespace

std::vector<NamedShape> read_shapes(const std::string& path) {
  std::vector<NamedShape> shapes;
  for (const auto& row : read_rows(path, 16)) {
    Numbers numbers;
    std::transform(row.begin() + 1, row.end(), numbers.begin(), [](const std::string& s) { return std::stoll(s); });
    shapes.push_back({row[0], to_shape(numbers)});
  }
  return shapes;
}

std::vector<NamedShape> read_layers(const std::string& path, int64_t batch) {
  std::vector<NamedShape> layers;
  std::set<std::string> seen;
  for (const auto& row : read_rows(path, 12)) {
    const auto number = [&](size_t column) { return int64_t(std::stoll(row[column])); };
    const auto axis = [&](size_t column) {
      const int64_t kernel = number(column + 2), dilation = number(column + 6), pad = (kernel - 1) * dilation / 2;
      const int64_t size = number(column), stride = number(column + 4);
      return Dimension{size, kernel, full(size, kernel, stride, dilation, pad, pad), stride, dilation, pad};
    };
    const Shape shape = assemble(batch, number(1), number(2), axis(3), axis(4));
    if (!seen.insert(to_text(shape)).second) continue;
    std::string name = row[0];
    for (size_t column = 1; column < 11; ++column) name += (column == 1 ? "-" : ".") + row[column];
    layers.push_back({name, shape});
  }
  return layers;
}

Shape cropped(Shape layer, double max_work) {
  // In steps of 28 and 32, which keep the sizes modulo the usual strides, tiles and vectors; rows first, being most
  // alike.
  const auto crop = [&](int64_t& size, int64_t& out, int64_t stride) {
    while (layer.work() > max_work && size >= 56) {
      size -= 28;
      out -= 28 / stride;
    }
  };
  if (28 % layer.stride_h == 0) crop(layer.H, layer.OH, layer.stride_h);
  if (28 % layer.stride_w == 0) crop(layer.W, layer.OW, layer.stride_w);
  while (layer.work() > max_work && layer.C >= 64) layer.C -= 32;
  return layer;
}

Shape random_shape(Random random, double max_work) {
  for (;;) {
    const int64_t kind = random.between(0, 9);
    const Shape shape = kind < 4   ? any_geometry(random)
                        : kind < 6 ? small_planes(random)
                        : kind < 8 ? large_kernels(random)
                        : kind < 9 ? wide_rows(random)
                                   : many_channels(random);
    if (shape.work() <= max_work) return shape;
  }
}

std::string to_text(const Shape& s) {
  std::string text;
  for (int64_t v : {s.N, s.C, s.M, s.H, s.W, s.KH, s.KW, s.OH, s.OW, s.stride_h, s.stride_w, s.dilation_h, s.dilation_w,
                    s.pad_top, s.pad_left}) {
    text += (text.empty() ? "" : ",") + std::to_string(v);
  }
  return text;
}

Shape parse_shape(const std::string& text) {
  const auto fields = split(text);
  Numbers numbers;
  if (fields.size() != numbers.size()) throw std::runtime_error("a shape is 15 numbers, got " + text);
  std::transform(fields.begin(), fields.end(), numbers.begin(), [](const std::string& s) { return std::stoll(s); });
  return to_shape(numbers);
}

}  // namespace dwconv::test
