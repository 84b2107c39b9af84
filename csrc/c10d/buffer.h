// Memory for frames on their way in and out: a header and its payload in one piece, used again and again.
#pragma once

#include <cstddef>
#include <cstring>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "hetsp/comm/frame.h"

namespace hetsp::routed {

// Room for one frame. Not initialised: what has not been received is never read.
class Buffer {
 public:
  explicit Buffer(std::size_t payload) : capacity_(payload), own_(new std::byte[sizeof(comm::Header) + payload]) {
    bytes_ = own_.get();
  }
  Buffer(std::byte* header, std::size_t payload) : capacity_(payload), bytes_(header) {}  // memory of somebody else

  std::size_t capacity() const { return capacity_; }  // of payload
  std::byte* payload() { return bytes_ + sizeof(comm::Header); }
  std::span<std::byte> room() { return {bytes_, sizeof(comm::Header) + capacity_}; }
  std::span<std::byte> frame(std::size_t length) { return room().first(sizeof(comm::Header) + length); }

  comm::Header header() const {
    comm::Header header;
    std::memcpy(&header, bytes_, sizeof header);
    return header;
  }
  void set_header(const comm::Header& header) { std::memcpy(bytes_, &header, sizeof header); }

 private:
  std::size_t capacity_;
  std::unique_ptr<std::byte[]> own_;
  std::byte* bytes_ = nullptr;
};

// Lends buffers of one capacity from any thread; they return on their own, and a few are kept. The pool outlives its loans.
class BufferPool : public std::enable_shared_from_this<BufferPool> {
 public:
  BufferPool(std::size_t payload, std::size_t kept) : payload_(payload), kept_(kept) {}

  std::size_t payload() const { return payload_; }
  std::shared_ptr<Buffer> take();

 private:
  void give_back(std::unique_ptr<Buffer> buffer);

  std::size_t payload_, kept_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Buffer>> free_;
};

}  // namespace hetsp::routed
