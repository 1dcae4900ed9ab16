// Keeps the CUDA library loadable with an older glibc than that of the machine that compiled it, as ../../binding/portable.cpp
// does for the CPU library.
#if defined(__linux__)

// dlsym, by which headers of PyTorch ask for newer functions of it, went from libdl to libc in glibc 2.34 and got a new
// version there. The linker sends calls here (--wrap=dlsym in setup_cuda.py), and they go on to the first one, which both have.
#if defined(__x86_64__)
__asm__(".symver dwconv_first_dlsym, dlsym@GLIBC_2.2.5");
#elif defined(__aarch64__)
__asm__(".symver dwconv_first_dlsym, dlsym@GLIBC_2.17");
#endif
extern "C" void* dwconv_first_dlsym(void* handle, const char* name);
extern "C" __attribute__((visibility("hidden"))) void* __wrap_dlsym(void* handle, const char* name) {
  return dwconv_first_dlsym(handle, name);
}

#endif
