// The shapes that the checker runs: those of a file, real layers cropped, and random ones.
#pragma once
#include <string>
#include <vector>

#include "kernel.h"
#include "random.h"

namespace dwconv::test {

struct NamedShape {
  std::string name;
  Shape shape;
};

// Reads a file with the columns name, N, C, ... pad_left. Throws std::runtime_error if it cannot.
std::vector<NamedShape> read_shapes(const std::string& path);

// Reads layers as torch_dwconv/bench/layers.csv has them, padded as networks do, each geometry once.
std::vector<NamedShape> read_layers(const std::string& path, int64_t batch);

// The layer made smaller until its work is at most `max_work`, or it would lose what makes it hard.
Shape cropped(Shape layer, double max_work);

// A shape of at most `max_work` multiply-adds.
Shape random_shape(Random random, double max_work);

std::string to_text(const Shape& shape);        // 15 numbers, as --shape takes them
Shape parse_shape(const std::string& numbers);  // throws std::runtime_error

}  // namespace dwconv::test
