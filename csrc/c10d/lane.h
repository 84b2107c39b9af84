// A connection between two ranks as an engine of torch.distributed offers it: messages in order, or an error.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

namespace hetsp::routed {

// One message under way. Somebody must wait for it: Gloo completes nothing on its own.
class Pending {
 public:
  virtual ~Pending() = default;
  virtual bool wait() = 0;   // blocks; false: aborted; throws std::exception: the connection is broken
  virtual void abort() = 0;  // from any thread, also before wait(): makes it return false; then nothing behind it moves
};

// May be used by several threads at once. Its destruction closes the connection, unless lanes to other ranks share it.
class Lane {
 public:
  virtual ~Lane() = default;

  // Neither blocks. The memory must stay until the message has been waited for. Both throw std::exception on a broken
  // connection.
  virtual std::unique_ptr<Pending> send(std::span<std::byte> bytes) = 0;
  virtual std::unique_ptr<Pending> receive(std::span<std::byte> room) = 0;  // the message may be shorter than the room
};

}  // namespace hetsp::routed
