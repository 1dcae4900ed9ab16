// Keeps the CPU library loadable with an older glibc than that of the machine that compiled it, beside single_threaded.cpp.
// The floor is glibc 2.28; tests/packaging/symbols.py reads it off the library. Other systems have no glibc.
#if defined(__linux__)

// exp got a second version in glibc 2.29, which differs in how it reports errors. The linker sends calls of exp here
// (--wrap=exp in setup.py), and they go on to the first one.
#if defined(__x86_64__)
__asm__(".symver dwconv_first_exp, exp@GLIBC_2.2.5");
#elif defined(__aarch64__)
__asm__(".symver dwconv_first_exp, exp@GLIBC_2.17");
#endif
extern "C" double dwconv_first_exp(double x);
extern "C" __attribute__((visibility("hidden"))) double __wrap_exp(double x) { return dwconv_first_exp(x); }

#endif
