// What kernels that walk down the columns of contiguous planes have in registers of one source row.
#pragma once
#include "../device/vector.cuh"

namespace dwconv::cuda {

constexpr int round_up_to_power(int n) { return n <= 1 ? n : 2 * round_up_to_power((n + 1) / 2); }

// The columns of one source row that V results need: column i of them is first + i, where first = results' first * S -
// pad. In memory's type until they are used. They come in groups that are inside or outside as a whole: left halo,
// vector, right halo.
template <class T, int K, int S, int V>
struct SourceRow {
  static constexpr int kColumns = (V - 1) * S + K, kLeft = K / 2, kInner = V * S;
  static constexpr int kRight = kColumns > kLeft + kInner ? kColumns - kLeft - kInner : 0;
  static constexpr int kLeftVector = round_up_to_power(kLeft), kRightVector = round_up_to_power(kRight);
  static constexpr int kGroups = 3;
  static_assert(kLeftVector <= kInner && kRightVector <= kInner);
  static __device__ constexpr int group_of(int i) { return i < kLeft ? 0 : i < kLeft + kInner ? 1 : 2; }

  Vector<T, kLeftVector> left;
  Vector<T, kInner> inner;
  Vector<T, kRight ? kRightVector : 1> right;

  struct Columns {
    bool inside[kGroups];
  };
  static __device__ __forceinline__ Columns columns(int first_result, int, int source_columns) {
    return {{first_result > 0, true, first_result * S + kInner < source_columns}};
  }

  // Whether this is how to read rows of so many columns: vectors that begin with the padding's end, as wide as `inner`,
  // which halos are no wider than.
  static bool takes(const T* sources, int source_columns, int results, int pad_left) {
    return source_columns == S * results && pad_left == K / 2 && in_vectors<kInner>(sources, source_columns);
  }

  // `row` points to column first_result * S - pad_left.
  __device__ __forceinline__ void load(const T* row, const Columns& c) {
    inner = read<kInner>(row + kLeft);
    if (c.inside[0]) left = read<kLeftVector>(row + kLeft - kLeftVector);
    if constexpr (kRight > 0) {
      if (c.inside[2]) right = read<kRightVector>(row + kLeft + kInner);
    }
  }
  __device__ __forceinline__ Accumulator<T> operator[](int i) {
    const int group = group_of(i);
    return widen(group == 0   ? left[i + kLeftVector - kLeft]
                 : group == 1 ? inner[i - kLeft]
                              : right[i - kLeft - kInner]);
  }
};

template <class T, int K, int S>
struct SourceRow<T, K, S, 1> {
  static constexpr int kColumns = K, kGroups = K;
  static __device__ constexpr int group_of(int i) { return i; }

  Vector<T, 1> values[K];

  struct Columns {
    bool inside[K];
  };
  static __device__ __forceinline__ Columns columns(int first_result, int pad_left, int source_columns) {
    Columns c;
#pragma unroll
    for (int i = 0; i < K; ++i) c.inside[i] = unsigned(first_result * S - pad_left + i) < unsigned(source_columns);
    return c;
  }
  __device__ __forceinline__ void load(const T* row, const Columns& c) {
#pragma unroll
    for (int i = 0; i < K; ++i) {
      if (c.inside[i]) values[i] = read<1>(row + i);
    }
  }
  __device__ __forceinline__ Accumulator<T> operator[](int i) { return widen(values[i][0]); }
};

// Calls use(v, kw, value) for each of V results and each tap kw of its row that is inside, taps of one result ascending.
template <class T, int K, int S, int V, class Use>
__device__ __forceinline__ void for_each_tap(SourceRow<T, K, S, V>& row,
                                             const typename SourceRow<T, K, S, V>::Columns& columns, const Use& use) {
  using Row = SourceRow<T, K, S, V>;
#pragma unroll
  for (int group = 0; group < Row::kGroups; ++group) {
    if (columns.inside[group]) {
#pragma unroll
      for (int v = 0; v < V; ++v) {
#pragma unroll
        for (int kw = 0; kw < K; ++kw) {
          if (Row::group_of(v * S + kw) == group) use(v, kw, row[v * S + kw]);
        }
      }
    }
  }
}

}  // namespace dwconv::cuda
