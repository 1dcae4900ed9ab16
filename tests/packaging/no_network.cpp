// Loaded into a process and those that it starts (LD_PRELOAD): refuses every socket but those within the machine's own file
// system, and every name to be looked up, and writes each attempt to the file that NO_NETWORK_LOG names.
#include <netdb.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>

#include <dlfcn.h>

namespace {

void note(const char* what) {
  const char* log = std::getenv("NO_NETWORK_LOG");
  if (FILE* file = log ? std::fopen(log, "a") : nullptr) {
    std::fprintf(file, "%s\n", what);
    std::fclose(file);
  }
}

}  // namespace

extern "C" int socket(int domain, int type, int protocol) noexcept {
  if (domain == AF_UNIX) {
    const auto next = reinterpret_cast<int (*)(int, int, int)>(dlsym(RTLD_NEXT, "socket"));
    return next(domain, type, protocol);
  }
  note("socket");
  errno = EACCES;
  return -1;
}

extern "C" int getaddrinfo(const char* name, const char*, const addrinfo*, addrinfo**) {
  note(name ? name : "getaddrinfo");
  return EAI_FAIL;
}

extern "C" hostent* gethostbyname(const char* name) {
  note(name);
  return nullptr;
}
