// A thread that no signal is delivered to.
#pragma once

#include <pthread.h>

#include <csignal>
#include <thread>
#include <utility>

namespace hetsp::checkpoint {

template <class Body>
[[nodiscard]] std::thread quiet_thread(Body body) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);  // a new thread inherits its maker's mask
  try {
    std::thread thread(std::move(body));
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return thread;
  } catch (...) {
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    throw;
  }
}

}  // namespace hetsp::checkpoint
