// A call that survives the faults of what it calls.
#pragma once
#include <setjmp.h>
#include <signal.h>

#include <optional>

namespace dwconv::test {

struct Fault {
  int signal;
  const void* address;
};

namespace detail {
inline sigjmp_buf resume;
inline Fault fault;

inline void on_fault(int signal, siginfo_t* info, void*) {
  fault = {signal, info->si_addr};
  siglongjmp(resume, 1);
}
}  // namespace detail

// Calls run(context) and returns the signal that ended it, if one did. Not for code that owns resources, since nothing
// is unwound: kernels own none. One call at a time in a process.
inline std::optional<Fault> trap_faults(void (*run)(void*), void* context) {
  constexpr int kSignals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
  struct sigaction trap = {}, previous[4];
  trap.sa_sigaction = detail::on_fault;
  trap.sa_flags = SA_SIGINFO | SA_ONSTACK;
  for (int i = 0; i < 4; ++i) sigaction(kSignals[i], &trap, &previous[i]);
  const bool faulted = sigsetjmp(detail::resume, /*savesigs=*/1) != 0;
  if (!faulted) run(context);
  for (int i = 0; i < 4; ++i) sigaction(kSignals[i], &previous[i], nullptr);
  return faulted ? std::optional<Fault>(detail::fault) : std::nullopt;
}

}  // namespace dwconv::test
