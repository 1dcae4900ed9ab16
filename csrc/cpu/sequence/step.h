// sequence_step, in NCHW and NHWC: a few new positions after those that a cache holds, and the cache brought up to date.
//
// Method: channels one by one, each with its row of the cache, in blocks whose sums get their activation as vectors. With
// one new position and a cache that is shifted, which is what a decoding model asks for, the taps are unrolled; with four
// taps and a cache of four positions that lie channel after channel, as transformers has them, lanes are channels.
// Bound: the call; a block of 64 channels takes some 40 ns where lanes are channels, else 250 ns.
#if defined(DWCONV_CPU_SEQUENCE_STEP_H) == defined(DWCONV_TARGET_TOGGLE)
#ifdef DWCONV_CPU_SEQUENCE_STEP_H
#undef DWCONV_CPU_SEQUENCE_STEP_H
#else
#define DWCONV_CPU_SEQUENCE_STEP_H
#endif

#include "line.h"
#include "quads.h"

DWCONV_BEGIN_TARGET

template <class T>
class SequenceStep {
 public:
  using A = Acc<T>;
  static constexpr int L = kLanes<A>;

  SequenceStep(Operation operation, const Shape& shape)
      : line_(operation, shape), blocks_(ceil_div(line_.channels, kBlock)) {}

  static const char* supports(Operation operation, const Shape& shape) {
    if (const char* reason = Line::refusal(operation, shape)) return reason;
    return shape.dilation_w != 1 && shape.KW != 1 ? "there is a dilation" : nullptr;
  }

  int64_t workspace_bytes() const { return 0; }

  // An item is a block of channels of an image.
  int64_t items() const { return line_.images * blocks_; }

  void run(const Buffers& buffers, int64_t begin, int64_t end) const {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t image = item / blocks_, channel = item % blocks_ * kBlock;
      block(buffers, image, channel, std::min(kBlock, line_.channels - channel));
    }
  }

  static constexpr Stage<SequenceStep> stages[] = {{&SequenceStep::items, &SequenceStep::run}};

 private:
  static constexpr int64_t kBlock = 64;

  // A channel of an image. Negative positions are those before the new ones, out of the cache.
  struct Channel {
    const T* x;
    int64_t x_step;
    T* cache;
    int64_t cache_step, length;
    int64_t next;  // where the first new position goes: `length` in a cache that is shifted

    DWCONV_INLINE_MEMBER A at(int64_t position) const {
      if (position >= 0) return A(to_acc(x[position * x_step]));
      const int64_t place = next + position;
      return A(to_acc(cache[(place < 0 ? place + length : place) * cache_step]));
    }

    void update(int64_t count, bool shifts) const {
      const int64_t skipped = std::max<int64_t>(0, count - length);  // positions that others come after
      if (shifts) {
        const int64_t kept = length - (count - skipped);
        for (int64_t i = 0; i < kept; ++i) cache[i * cache_step] = cache[(i + count) * cache_step];
        for (int64_t i = skipped; i < count; ++i) cache[(kept + i - skipped) * cache_step] = x[i * x_step];
        return;
      }
      int64_t place = (next + skipped) % length;
      for (int64_t i = skipped; i < count; ++i) {
        cache[place * cache_step] = x[i * x_step];
        place = place + 1 == length ? 0 : place + 1;
      }
    }
  };

  void block(const Buffers& buffers, int64_t image, int64_t first, int64_t count) const {
    const Sequence& s = *buffers.sequence;
    const Sequence::Cache& cache = s.cache;
    const int64_t row = cache.rows ? cache.rows[image] : image, positions = line_.results;
    T* result = static_cast<T*>(buffers.result) + (image * line_.channels + first) * positions;
    if (row < 0) {
      for (int64_t i = 0; i < count * positions; ++i) result[i] = T{};
      return;
    }
    const bool shifts = !cache.begins;
    int64_t next = cache.length;
    if (!shifts) next = (cache.begins[image] % cache.length + cache.length) % cache.length;
    Channel channel = {static_cast<const T*>(buffers.input) + image * s.input.image + first * s.input.step,
                       s.input_position,
                       static_cast<T*>(cache.memory) + row * cache.row_step + first * cache.channel_step,
                       cache.position_step,
                       cache.length,
                       next};
    alignas(64) A sums[kBlock] = {};
    if (shifts && positions == 1 && cache.position_step == 1) {
      if (line_.width == 4 && cache.length == 4 && cache.channel_step == 4 && s.input.step == 1) {
        s.wide_weight ? steps<A>(buffers, channel, first, count, sums) : steps<T>(buffers, channel, first, count, sums);
        finish(sums, result, count, 1, buffers.activation);
        return;
      }
      with_width<kUnrolledBackward<T>>(line_.width, [&](auto width) {
        s.wide_weight ? step<decltype(width)::value, A>(buffers, channel, first, count, sums)
                      : step<decltype(width)::value, T>(buffers, channel, first, count, sums);
      });
      finish(sums, result, count, 1, buffers.activation);
      return;
    }
    for (int64_t l = 0; l < positions; ++l) {
      Channel each = channel;
      for (int64_t i = 0; i < count; ++i) {
        sums[i] = bias_of<T>(buffers, first + i);
        for (int64_t k = 0; k < line_.width; ++k) {
          sums[i] += weight_of<T>(line_, buffers, first + i, k) * each.at(l + k - (line_.width - 1));
        }
        each.x += s.input.step, each.cache += cache.channel_step;
      }
      finish(sums, result + l, count, positions, buffers.activation);
    }
    for (int64_t i = 0; i < count; ++i) {
      channel.update(positions, shifts);
      channel.x += s.input.step, channel.cache += cache.channel_step;
    }
  }

  // One new position, and the four of the cache and the four taps of each channel behind those of the channel before.
  template <class W>
  DWCONV_INLINE_MEMBER void steps(const Buffers& buffers, Channel channel, int64_t first, int64_t count,
                                  A* sums) const {
    int64_t done = 0;
    for (; done + L <= count; done += L) {
      const Quads<W> taps(static_cast<const W*>(buffers.weight) + (first + done) * 4);
      Quads<T> cache(channel.cache);
      cache.push(channel.x);
      cache.write(channel.cache);
      Vec<A> sum = taps.at(3) * cache.at(3);
      for (int k = 0; k < 3; ++k) sum += taps.at(k) * cache.at(k);
      if (buffers.bias) {
        sum += buffers.sequence->wide_bias ? load(static_cast<const A*>(buffers.bias) + first + done)
                                           : load(static_cast<const T*>(buffers.bias) + first + done);
      }
      store(sums + done, sum);
      channel.cache += 4 * L, channel.x += L;
    }
    if (done < count) step<4, W>(buffers, channel, first + done, count - done, sums + done);
  }

  // One new position, and a cache whose positions lie next to each other.
  template <int K, class W>
  DWCONV_INLINE_MEMBER void step(const Buffers& buffers, Channel channel, int64_t first, int64_t count, A* sums) const {
    const Sequence& s = *buffers.sequence;
    const int64_t width = K > 0 ? K : line_.width, length = channel.length;
    const W* weight = static_cast<const W*>(buffers.weight) + first * width;
    T* cache = channel.cache;
    const T* x = channel.x;
    if (buffers.bias) {
      for (int64_t i = 0; i < count; ++i) sums[i] = bias_of<T>(buffers, first + i);
    }
    for (int64_t i = 0; i < count; ++i) {
      const T newest = *x;
      T* last = cache + length - (width - 1);
      A sum = A(to_acc(weight[width - 1])) * A(to_acc(newest));
      for (int64_t k = 0; k < width - 1; ++k) sum += A(to_acc(weight[k])) * A(to_acc(last[k]));
      sums[i] += sum;
      for (int64_t p = 0; p + 1 < length - (width - 1); ++p) cache[p] = cache[p + 1];
      if (length >= width) last[-1] = width > 1 ? last[0] : newest;
      for (int64_t k = 0; k + 1 < width - 1; ++k) last[k] = last[k + 1];
      if (width > 1) last[width - 2] = newest;
      cache += s.cache.channel_step, x += s.input.step, weight += width;
    }
  }

  void finish(A* sums, T* result, int64_t count, int64_t step, Activation activation) const {
    if (activation != Activation::none) {
      for (int64_t i = 0; i < kBlock; i += L) {
        Vec<A> some[1] = {load(sums + i)};
        apply<T, 1>(some, activation);
        store(sums + i, some[0]);
      }
    }
    if (step == 1) {
      for (int64_t i = 0; i < count; i += L) store(result + i, load(sums + i), lanes<A>(0, count - i));
      return;
    }
    for (int64_t i = 0; i < count; ++i) from_acc(sums[i], result + i * step);
  }

  Line line_;
  int64_t blocks_;  // of channels
};

DWCONV_END_TARGET

#endif  // DWCONV_CPU_SEQUENCE_STEP_H
