#include "c10d/sentinel.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>

#include "hetsp/base/error.h"

namespace hetsp::routed {

Sentinel::Sentinel(std::vector<Watched> peers, std::function<void(int)> ended)
    : peers_(std::move(peers)), ended_(std::move(ended)), wake_(eventfd(0, EFD_CLOEXEC)) {
  require(wake_ >= 0, "no descriptor is left to watch other ranks with: ", std::strerror(errno));
  thread_ = std::thread([this] { run(); });
}

Sentinel::~Sentinel() {
  const std::uint64_t one = 1;
  while (write(wake_, &one, sizeof one) < 0 && errno == EINTR) {
  }
  thread_.join();
  close(wake_);
  for (const Watched& peer : peers_) {
    for (const int descriptor : peer.descriptors) close(descriptor);
  }
}

void Sentinel::run() {
  std::vector<pollfd> waited{{wake_, POLLIN, 0}};
  std::vector<int> whose{-1};
  for (const Watched& peer : peers_) {
    for (const int descriptor : peer.descriptors) {
      waited.push_back({descriptor, POLLIN, 0});
      whose.push_back(peer.peer);
    }
  }
  for (;;) {
    if (poll(waited.data(), waited.size(), -1) < 0 && errno != EINTR) return;
    if (waited[0].revents != 0) return;
    for (std::size_t i = 1; i < waited.size(); ++i) {
      if (waited[i].fd < 0 || waited[i].revents == 0) continue;
      const int peer = whose[i];
      for (std::size_t other = 1; other < waited.size(); ++other)
        if (whose[other] == peer) waited[other].fd = -1;  // poll() passes it over
      ended_(peer);
    }
  }
}

}  // namespace hetsp::routed
