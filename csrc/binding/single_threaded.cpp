// Keeps both libraries loadable with an older glibc than that of the machine that compiled them (portable.cpp).
#if defined(__linux__)

// libstdc++'s shared_ptr asks glibc whether the process has one thread, through this variable, which is new in glibc
// 2.32. A definition of our own, seen by nobody else, takes the import out of the library. The value says "perhaps
// more than one", which is always right.
extern "C" __attribute__((visibility("hidden"))) char __libc_single_threaded;
char __libc_single_threaded = 0;

#endif
