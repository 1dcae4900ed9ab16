// BatchNorm with its activation in float64, channel by channel, and how large its terms are. Sums are of more digits, since
// float64 kernels lose less than a running sum of theirs would.
#include <algorithm>
#include <cmath>

#include "textbook.h"

namespace dwconv::test {
namespace {

// What a channel is made of. Without a weight and a bias they are 1 and 0.
struct Channel {
  std::vector<size_t> places;  // of its numbers
  double mean, variance, scale, bias, rstd;
};

Channel channel_of(const Shape& s, const Operands& operands, int64_t c, bool of_batch) {
  Channel all = {};
  const int64_t plane = s.H * s.W;
  for (int64_t n = 0; n < s.N; ++n) {
    for (int64_t i = 0; i < plane; ++i) all.places.push_back(size_t((n * s.C + c) * plane + i));
  }
  const auto count = double(all.places.size());
  if (of_batch) {
    long double sum = 0, squares = 0;
    for (const size_t i : all.places) sum += operands.input[i];
    const long double mean = sum / count;
    for (const size_t i : all.places) squares += (operands.input[i] - mean) * (operands.input[i] - mean);
    all.mean = double(mean), all.variance = double(squares / count);
  } else {
    all.mean = operands.mean[size_t(c)], all.variance = operands.variance[size_t(c)];
  }
  all.rstd = 1 / std::sqrt(all.variance + operands.epsilon);
  all.scale = operands.weight[size_t(c)] * all.rstd, all.bias = operands.bias[size_t(c)];
  return all;
}

bool finds_statistics(Answer answer) {
  return answer == Answer::batch_norm_output || answer == Answer::batch_norm_mean ||
         answer == Answer::batch_norm_variance;
}

}  // namespace

std::vector<double> batch_norm(Answer answer, const Shape& s, const Operands& operands) {
  std::vector<double> values(size_t(size(answer, s)));
  for (int64_t c = 0; c < s.C; ++c) {
    const Channel channel = channel_of(s, operands, c, finds_statistics(answer));
    const auto count = double(channel.places.size());
    if (answer == Answer::batch_norm_mean) values[size_t(c)] = channel.mean;
    if (answer == Answer::batch_norm_variance) values[size_t(c)] = channel.variance;
    if (answer == Answer::batch_norm_output || answer == Answer::batch_norm_eval_output) {
      for (const size_t i : channel.places) {
        const double argument = (operands.input[i] - channel.mean) * channel.scale + channel.bias;
        values[i] = textbook_activation(argument, operands.activation);
      }
    }
    if (finds_statistics(answer) || answer == Answer::batch_norm_eval_output) continue;
    std::vector<double> gradients;
    long double all_sums = 0, all_products = 0;
    for (const size_t i : channel.places) {
      const double d = operands.input[i] - channel.mean, argument = d * channel.scale + channel.bias;
      const double slope = textbook_derivative(argument, operands.activation);
      gradients.push_back(slope == 0 ? 0 : operands.grad_output[i] * slope);
      all_sums += gradients.back(), all_products += gradients.back() * d;
    }
    const auto sum = double(all_sums), products = double(all_products);
    if (answer == Answer::batch_norm_grad_bias) values[size_t(c)] = sum;
    if (answer == Answer::batch_norm_grad_weight) values[size_t(c)] = products * channel.rstd;
    for (size_t k = 0; k < channel.places.size(); ++k) {
      const size_t i = channel.places[k];
      const double d = operands.input[i] - channel.mean;
      if (answer == Answer::batch_norm_eval_grad_input) values[i] = gradients[k] * channel.scale;
      if (answer == Answer::batch_norm_grad_input) {
        const double projected = d * channel.rstd * channel.rstd * products / count;
        values[i] = (gradients[k] - sum / count - projected) * channel.scale;
      }
    }
  }
  return values;
}

std::vector<double> batch_norm_magnitudes(Answer answer, const Shape& s, const Operands& operands) {
  std::vector<double> sizes(size_t(size(answer, s)));
  for (int64_t c = 0; c < s.C; ++c) {
    const Channel channel = channel_of(s, operands, c, finds_statistics(answer));
    const auto count = double(channel.places.size());
    const double scale = std::fabs(channel.scale);
    double largest = std::fabs(channel.mean);
    for (const size_t i : channel.places) largest = std::max(largest, std::fabs(operands.input[i]));
    if (answer == Answer::batch_norm_mean) sizes[size_t(c)] = largest;
    // Of squares of deviations, which are rounded at the size of what they are the deviations of.
    if (answer == Answer::batch_norm_variance) sizes[size_t(c)] = channel.variance + largest * largest * 0x1p-20;
    // How far an argument may be off, and a gradient before the activation.
    const auto argument = [&](size_t i) {
      return (std::fabs(operands.input[i] - channel.mean) + largest) * scale + std::fabs(channel.bias) + 1;
    };
    if (answer == Answer::batch_norm_output || answer == Answer::batch_norm_eval_output) {
      for (const size_t i : channel.places) sizes[i] = argument(i);
    }
    if (finds_statistics(answer) || answer == Answer::batch_norm_eval_output) continue;
    double sum = 0, products = 0;
    for (const size_t i : channel.places) {
      const double size = std::fabs(operands.grad_output[i]) * argument(i);
      sum += size, products += size * std::fabs(operands.input[i] - channel.mean);
    }
    if (answer == Answer::batch_norm_grad_bias) sizes[size_t(c)] = sum;
    if (answer == Answer::batch_norm_grad_weight) sizes[size_t(c)] = products * channel.rstd;
    for (const size_t i : channel.places) {
      const double own = std::fabs(operands.grad_output[i]) * argument(i) * scale;
      const double d = std::fabs(operands.input[i] - channel.mean);
      const double shared = (sum + d * channel.rstd * channel.rstd * products) / count * scale;
      if (answer == Answer::batch_norm_eval_grad_input) sizes[i] = own;
      if (answer == Answer::batch_norm_grad_input) sizes[i] = own + shared;
    }
  }
  return sizes;
}

double textbook_derivative(double x, Activation activation) {
  const double root = std::sqrt(2 / std::acos(-1.0));
  const auto gate = [](double z) { return z < 0 ? std::exp(z) / (1 + std::exp(z)) : 1 / (1 + std::exp(-z)); };
  switch (activation) {
    case Activation::relu: return x > 0 || std::isnan(x) ? 1 : 0;
    case Activation::relu6: return (x > 0 && x < 6) || std::isnan(x) ? 1 : 0;
    case Activation::hardswish: return x <= -3 ? 0 : x >= 3 ? 1 : (2 * x + 3) / 6;
    case Activation::silu: return gate(x) + x * gate(x) * gate(-x);
    case Activation::gelu: return std::erfc(-x / std::sqrt(2.0)) / 2 + x * root / 2 * std::exp(-x * x / 2);
    case Activation::gelu_tanh: {
      const double z = 2 * root * (x + 0.044715 * x * x * x);
      return gate(z) + x * gate(z) * gate(-z) * 2 * root * (1 + 3 * 0.044715 * x * x);
    }
    default: return 1;
  }
}

}  // namespace dwconv::test
