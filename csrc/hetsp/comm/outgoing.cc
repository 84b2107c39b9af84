#include "hetsp/comm/outgoing.h"

#include <algorithm>

#include "hetsp/base/ceil_div.h"

namespace hetsp::comm {

Outgoing::Outgoing(std::size_t chunked, std::size_t chunk_bytes, std::size_t window)
    : chunk_bytes_(chunk_bytes), window_(window), state_(ceil_div(chunked, chunk_bytes), At::waiting) {}

std::span<const std::byte> Outgoing::piece(std::uint32_t chunk) const {
  return bytes.subspan(offset(chunk), std::min(chunk_bytes_, bytes.size() - offset(chunk)));
}

std::size_t Outgoing::waiting() const { return flights_.size() >= window_ ? 0 : std::min(left(), window_ - flights_.size()); }

bool Outgoing::tail() const { return next_ == state_.size() && returned_.empty() && !flights_.empty(); }

std::optional<std::uint32_t> Outgoing::take(int rail, Time now) {
  if (flights_.size() >= window_) return std::nullopt;
  while (!returned_.empty()) {
    const std::uint32_t chunk = returned_.front();
    returned_.pop_front();
    if (state_[chunk] != At::waiting) continue;  // a copy has arrived meanwhile
    again(chunk, rail, now);
    return chunk;
  }
  while (next_ < state_.size()) {
    const std::uint32_t chunk = next_++;
    if (state_[chunk] != At::waiting) continue;
    again(chunk, rail, now);
    return chunk;
  }
  return std::nullopt;
}

void Outgoing::again(std::uint32_t chunk, int rail, Time now) {
  state_[chunk] = At::under_way;
  Flight& flight = flights_[chunk];
  if (flight.attempts == 0)
    if (const auto before = attempts_.find(chunk); before != attempts_.end()) flight.attempts = before->second;
  flight.rail = rail;
  flight.sent = now;
  ++flight.attempts;
}

std::uint16_t Outgoing::attempt(std::uint32_t chunk) const {
  const auto flight = flights_.find(chunk);
  return flight == flights_.end() ? std::uint16_t{0} : static_cast<std::uint16_t>(flight->second.attempts - 1);
}

std::optional<Outgoing::Flight> Outgoing::arrived(std::uint32_t chunk) {
  if (chunk >= state_.size() || state_[chunk] == At::arrived) return std::nullopt;
  state_[chunk] = At::arrived;
  const auto flight = flights_.find(chunk);
  if (flight == flights_.end()) return std::nullopt;
  const Flight ended = flight->second;
  flights_.erase(flight);
  return ended;
}

bool Outgoing::give_back(std::uint32_t chunk, int rail) {
  const auto flight = flights_.find(chunk);
  if (flight == flights_.end() || flight->second.rail != rail) return false;
  attempts_[chunk] = flight->second.attempts;
  state_[chunk] = At::waiting;
  returned_.push_back(chunk);
  flights_.erase(flight);
  return true;
}

std::size_t Outgoing::give_back_all(int rail) {
  std::vector<std::uint32_t> found;
  for (const auto& [chunk, flight] : flights_)
    if (flight.rail == rail) found.push_back(chunk);
  std::sort(found.begin(), found.end());
  for (const std::uint32_t chunk : found) give_back(chunk, rail);
  return found.size();
}

}  // namespace hetsp::comm
