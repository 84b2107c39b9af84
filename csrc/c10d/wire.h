// One end of a link at work: frames out, frames in, and the news that it broke.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "c10d/buffer.h"
#include "c10d/lane.h"
#include "hetsp/comm/transport.h"

namespace hetsp::routed {

// What a wire reports, from threads of its own; none of these may block.
struct WireEvents {
  std::function<void(std::shared_ptr<Buffer>)> arrived;  // a frame
  std::function<void(comm::Token)> sent;                 // for every send, also where the wire broke or was closed
  std::function<void(const std::string&)> broken;        // at most once; nothing is reported when close() has returned
};

// A lane with two threads: one waits for what arrives and keeps `depth` receives posted (a receive that is always pending is
// also what notices that the other end died: Gloo tells a sender nothing), one waits for sends, which Gloo completes in wait()
// alone. A broken connection leaves the message in flight waiting, so the first error aborts everything else.
class Wire {
 public:
  Wire(std::unique_ptr<Lane> lane, std::shared_ptr<BufferPool> receive, int depth, WireEvents events);
  ~Wire();  // close()

  // Not to be called from two threads at once. Never blocks.
  void send(std::shared_ptr<Buffer> buffer, std::size_t payload, comm::Token token);

  void close();  // gives up what is in flight, reports it as sent, joins both threads, closes the lane; not from an event

 private:
  struct Message {
    std::shared_ptr<Pending> pending;  // null: the lane refused it
    std::shared_ptr<Buffer> buffer;
    comm::Token token = 0;
  };

  void receive_frames();
  void wait_for_sends();
  void post_receive(std::deque<Message>& posted);
  void fail(const std::string& why);
  void give_up();

  std::unique_ptr<Lane> lane_;
  std::shared_ptr<BufferPool> pool_;
  int depth_;
  WireEvents events_;

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Message> sends_;                      // in flight or refused, oldest first
  std::deque<std::shared_ptr<Pending>> receives_;  // posted
  bool closing_ = false, failed_ = false;
  std::thread receiver_, sender_;
};

}  // namespace hetsp::routed
