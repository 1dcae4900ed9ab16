// The activations on accumulators, as the last step before they are stored.

template <class A>
DWCONV_INLINE Vec<A> at_least(Vec<A> value, A bound) {
  return value < bound ? broadcast<A>(bound) : value;  // NaN stays
}

template <class A>
DWCONV_INLINE Vec<A> at_most(Vec<A> value, A bound) {
  return value > bound ? broadcast<A>(bound) : value;
}

template <class A>
static __attribute__((noinline)) void activate_each(Vec<A>* values, int count, Activation activation) {
  for (int i = 0; i < count; ++i) {
    Vec<A>& x = values[i];
    switch (activation) {
      case Activation::none: break;
      case Activation::relu: x = at_least<A>(x, 0); break;
      case Activation::relu6: x = at_most<A>(at_least<A>(x, 0), 6); break;
      case Activation::hardswish: x = x * at_most<A>(at_least<A>(x + A(3), 0), 6) / A(6); break;
      default:
        for (int lane = 0; lane < kLanes<A>; ++lane) x[lane] = A(activated(x[lane], activation));
    }
  }
}

// The R accumulators stay in registers where there is nothing to do: only a copy of them has an address.
template <class A, int R>
DWCONV_INLINE void activate(Vec<A> (&acc)[R], Activation activation) {
  if (__builtin_expect(activation == Activation::none, 1)) return;
  Vec<A> values[R];
  DWCONV_UNROLL
  for (int r = 0; r < R; ++r) values[r] = acc[r];
  activate_each<A>(values, R, activation);
  DWCONV_UNROLL
  for (int r = 0; r < R; ++r) acc[r] = values[r];
}
