// Between two targets: forgets the one before, and opens the guards of all per-target headers again. No guard of its own,
// since for_each_target.h includes it once after each target.
#undef DWCONV_ISA
#undef DWCONV_VEC_BYTES
#undef DWCONV_ENTER_ISA
#undef DWCONV_LEAVE_ISA
#ifdef DWCONV_TARGET_TOGGLE
#undef DWCONV_TARGET_TOGGLE
#else
#define DWCONV_TARGET_TOGGLE
#endif
