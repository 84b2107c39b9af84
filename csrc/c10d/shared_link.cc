#include "c10d/shared_link.h"

#include "hetsp/base/error.h"

namespace hetsp::routed {

// False: no room, or the link is broken.
bool SharedLink::put(const comm::Header& header, std::span<const std::byte> payload, comm::Token token,
                     std::vector<comm::Token>& sent) {
  switch (out_.put(header, payload, in_slot(header))) {
    case RingWriter::Put::full:
      return false;
    case RingWriter::Put::broken:
      failure_ = "the shared memory holds positions that cannot be";
      return false;
    case RingWriter::Put::done:
      break;
  }
  (in_slot(header) && out_.slots_used() > calm ? held_back_ : sent).push_back(token);
  return true;
}

void SharedLink::send(const comm::Header& header, std::span<const std::byte> payload, comm::Token token,
                      std::vector<comm::Token>& sent) {
  if (ended_ || !failure_.empty()) return sent.push_back(token);
  if (!waiting_.empty() || !put(header, payload, token, sent))
    waiting_.push_back({header, {payload.begin(), payload.end()}, token});
  if (!waiting_.empty() || !held_back_.empty()) flush(sent);
}

void SharedLink::flush(std::vector<comm::Token>& sent) {
  while (!waiting_.empty() && failure_.empty()) {
    const Waiting& first = waiting_.front();
    if (!put(first.header, first.payload, first.token, sent)) break;
    waiting_.pop_front();
  }
  if (!held_back_.empty() && out_.slots_used() <= caught_up) {
    sent.insert(sent.end(), held_back_.begin(), held_back_.end());
    held_back_.clear();
  }
  if (!waiting_.empty()) out_.want_ring();
  if (!waiting_.empty() || !held_back_.empty()) out_.want_slots(caught_up);
}

void SharedLink::end(std::vector<comm::Token>& sent) {
  ended_ = true;
  for (const Waiting& frame : waiting_) sent.push_back(frame.token);
  sent.insert(sent.end(), held_back_.begin(), held_back_.end());
  waiting_.clear();
  held_back_.clear();
}

bool SharedLink::ready() const {
  if (ended_) return false;
  if (!failure_.empty() || !in_->empty()) return true;
  if (!held_back_.empty() && out_.slots_used() <= caught_up) return true;
  return !waiting_.empty() && out_.has_room(waiting_.front().payload.size(), in_slot(waiting_.front().header));
}

bool SharedLink::take(RingReader::Frame& frame) {
  if (ended_ || !failure_.empty()) return false;
  return in_->take(frame, failure_) == RingReader::Take::frame;
}

std::shared_ptr<Buffer> SharedLink::slot(const RingReader::Frame& frame) const {
  return {new Buffer(frame.payload.data() - sizeof(comm::Header), frame.payload.size()),
          [in = in_, slot = frame.slot](Buffer* done) {
            delete done;
            in->release(slot);
          }};
}

std::string SharedLink::report() const {
  if (ended_) return "ended";
  return concat(in_->empty() ? "nothing" : "something", " to take, ", in_->held(), " slots held here, ", out_.slots_used(),
                " there, ", waiting_.size(), " frames wait for room, ", held_back_.size(), " answers held back");
}

}  // namespace hetsp::routed
