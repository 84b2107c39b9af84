// Preloaded into a program that dies of a signal, where no debugger is at hand: tells the signal, the place, the stack in C and
// what is mapped as code, and lets the program die as it would have.
//
//   c++ -shared -fPIC -o crash_handler.so bench/support/crash_handler.cc && LD_PRELOAD=./crash_handler.so PROGRAM
//
// Long after the damage nothing can be relied on, so it calls what is safe in a handler, and snprintf, which is in practice.
#include <execinfo.h>
#include <fcntl.h>
#include <signal.h>  // NOLINT(modernize-deprecated-headers): sigaction is no part of <csignal>
#include <ucontext.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>

namespace {

constexpr int kSignals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};
alignas(16) char stack[1 << 18];  // of its own: the program's may be what overflowed

void say(const char* text, std::size_t size) {
  if (write(STDERR_FILENO, text, size) < 0) return;  // nowhere left to tell it
}

unsigned long long code_of(const void* context) {
#if defined(__x86_64__)
  return static_cast<unsigned long long>(static_cast<const ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP]);
#else
  (void)context;
  return 0;
#endif
}

// The lines of /proc/self/maps that hold code of a file.
void say_libraries() {
  static char text[1 << 16];
  const int file = open("/proc/self/maps", O_RDONLY);
  if (file < 0) return;
  std::size_t kept = 0;
  for (ssize_t got; (got = read(file, text + kept, sizeof(text) - kept - 1)) > 0;) {
    text[kept += static_cast<std::size_t>(got)] = '\0';
    char* line = text;
    for (char* end; (end = std::strchr(line, '\n')) != nullptr; line = end + 1) {
      *end = '\0';
      const char* name = std::strchr(line, '/');
      if (name == nullptr || std::strstr(line, " r-xp ") == nullptr) continue;
      say("library ", 8), say(line, static_cast<std::size_t>(end - line)), say("\n", 1);
    }
    kept = std::strlen(line);
    std::memmove(text, line, kept);
  }
  close(file);
}

void on_signal(int number, siginfo_t* info, void* context) {
  char line[160];
  const int size = std::snprintf(line, sizeof(line), "crash: signal %d, address %p, code at %#llx\n", number, info->si_addr,
                                 code_of(context));
  say(line, static_cast<std::size_t>(size));
  void* frames[64];
  backtrace_symbols_fd(frames, backtrace(frames, 64), STDERR_FILENO);
  say_libraries();
  raise(number);  // the default action is back, and comes when this handler returns
}

__attribute__((constructor)) void install() {
  void* frame = nullptr;
  (void)backtrace(&frame, 1);  // loads what it needs now
  stack_t other{};
  other.ss_sp = stack, other.ss_size = sizeof(stack);
  sigaltstack(&other, nullptr);
  struct sigaction action{};
  action.sa_sigaction = on_signal;
  action.sa_flags = static_cast<int>(SA_SIGINFO | SA_ONSTACK | SA_RESETHAND);
  for (const int number : kSignals) sigaction(number, &action, nullptr);
}

}  // namespace
