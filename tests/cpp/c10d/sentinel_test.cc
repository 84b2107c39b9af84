#include "c10d/sentinel.h"

#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <csignal>

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <vector>

#include "support/check.h"

using namespace hetsp::routed;

namespace {

class Heard {
 public:
  void add(int peer) {
    const std::scoped_lock lock(mutex_);
    peers_.push_back(peer);
    wake_.notify_all();
  }
  std::vector<int> wait_for(std::size_t count, std::chrono::milliseconds limit = std::chrono::seconds(20)) {
    std::unique_lock lock(mutex_);
    wake_.wait_for(lock, limit, [&] { return peers_.size() >= count; });
    return peers_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<int> peers_;
};

struct Child {
  pid_t pid = 0;
  int socket = -1;  // whose other end the child holds
};

// A process that does nothing; its own child inherits the socket if so wished.
Child child(bool with_grandchild) {
  int ends[2] = {-1, -1};
  CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  const pid_t pid = fork();
  if (pid == 0) {
    close(ends[0]);
    if (with_grandchild && fork() == 0) {
      alarm(60);
      for (;;) pause();
    }
    for (;;) pause();
  }
  close(ends[1]);
  return {pid, ends[0]};
}

void end(const Child& of) {
  kill(of.pid, SIGKILL);
  waitpid(of.pid, nullptr, 0);
}

}  // namespace

TEST(a_process_that_is_killed_is_reported_once_and_a_stopped_one_is_not) {
  const Child first = child(false), second = child(false);
  Heard heard;
  {
    const int process = static_cast<int>(syscall(SYS_pidfd_open, first.pid, 0));
    std::vector<int> descriptors{first.socket};
    if (process >= 0) descriptors.push_back(process);
    Sentinel sentinel({{7, descriptors}, {3, {second.socket}}}, [&heard](int peer) { heard.add(peer); });
    kill(first.pid, SIGSTOP);
    kill(second.pid, SIGSTOP);
    CHECK(heard.wait_for(1, std::chrono::milliseconds(50)).empty());
    end(first);
    CHECK((heard.wait_for(1) == std::vector<int>{7}));
    CHECK_EQ(heard.wait_for(2, std::chrono::milliseconds(50)).size(), std::size_t{1});
    end(second);
    CHECK((heard.wait_for(2) == std::vector<int>{7, 3}));
  }
  CHECK_EQ(write(first.socket, "x", 1), -1);  // closed with the sentinel
}

TEST(children_that_inherited_its_socket_hide_no_death) {
  const Child parent = child(true);
  const int process = static_cast<int>(syscall(SYS_pidfd_open, parent.pid, 0));
  if (process < 0) {
    std::puts("skipped: this kernel has no pidfd_open");
    end(parent);
    return;
  }
  Heard heard;
  Sentinel sentinel({{1, {parent.socket, process}}}, [&heard](int peer) { heard.add(peer); });
  end(parent);
  CHECK((heard.wait_for(1) == std::vector<int>{1}));
}

TEST(it_ends_while_everybody_lives) {
  const Child other = child(false);
  Heard heard;
  {
    const Sentinel sentinel({{1, {other.socket}}}, [&heard](int peer) { heard.add(peer); });
  }
  CHECK(heard.wait_for(1, std::chrono::milliseconds(1)).empty());
  end(other);
}

TEST_MAIN()
