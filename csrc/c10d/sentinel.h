// Sees at once when another process of this machine ends, whatever ended it.
#pragma once

#include <functional>
#include <thread>
#include <utility>
#include <vector>

namespace hetsp::routed {

// Waits on descriptors that become readable or hang up when a process ends: a socket that it holds open and never writes to, a
// pidfd (which children of the process, that have inherited the socket, do not keep silent). A stopped process has not ended.
class Sentinel {
 public:
  struct Watched {
    int peer = 0;
    std::vector<int> descriptors;  // owned
  };

  // `ended` is called at most once for each peer, on the sentinel's thread; it must not block.
  Sentinel(std::vector<Watched> peers, std::function<void(int peer)> ended);
  ~Sentinel();  // closes the descriptors
  Sentinel(const Sentinel&) = delete;
  Sentinel& operator=(const Sentinel&) = delete;

 private:
  void run();

  std::vector<Watched> peers_;
  std::function<void(int)> ended_;
  int wake_ = -1;
  std::thread thread_;
};

}  // namespace hetsp::routed
