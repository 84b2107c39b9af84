#include "hetsp/checkpoint/probes.h"

#include <algorithm>
#include <cstring>

namespace hetsp::checkpoint {

namespace {

// splitmix64 (Steele, Lea, Flood, OOPSLA 2014): any two inputs give unrelated outputs.
std::uint64_t mixed(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

// Calls body(offset, bytes) for the probes of a span, ascending; `salt` places the middle ones.
template <class Body>
void for_each_probe(std::int64_t span_bytes, std::uint64_t salt, const Body& body) {
  for (std::int64_t begin = 0; begin < span_bytes; begin += Probes::kStretch) {
    const std::int64_t bytes = std::min(Probes::kStretch, span_bytes - begin);
    if (bytes <= 3 * Probes::kBytes) {
      for (std::int64_t at = 0; at < bytes; at += Probes::kBytes) body(begin + at, std::min(Probes::kBytes, bytes - at));
      continue;
    }
    const auto room = static_cast<std::uint64_t>(bytes - 3 * Probes::kBytes) + 1;
    body(begin, Probes::kBytes);
    body(begin + Probes::kBytes + static_cast<std::int64_t>(mixed(salt + static_cast<std::uint64_t>(begin)) % room),
         Probes::kBytes);
    body(begin + bytes - Probes::kBytes, Probes::kBytes);
  }
}

}  // namespace

Probes::Probes(const std::vector<Span>& spans, std::uint64_t save) {
  for (std::size_t s = 0; s < spans.size(); ++s) {
    const Span& span = spans[s];
    if (span.eager) continue;
    for_each_probe(span.bytes, mixed(save) + s, [&](std::int64_t offset, std::int64_t bytes) {
      probes_.push_back({static_cast<const char*>(span.data) + offset, static_cast<std::int64_t>(s), offset + bytes,
                         static_cast<std::int32_t>(bytes), span.device});
    });
  }
  // Apart from the loop above, so that the misses of many probes are in flight at once.
  noted_.resize(probes_.size() * static_cast<std::size_t>(kBytes));
  for (std::size_t p = 0; p < probes_.size(); ++p)
    if (probes_[p].device == kHost)
      std::memcpy(&noted_[p * static_cast<std::size_t>(kBytes)], probes_[p].source, static_cast<std::size_t>(probes_[p].bytes));
}

std::vector<staging::DevicePiece> Probes::on_device(int device) const {
  std::vector<staging::DevicePiece> pieces;
  for (const Probe& probe : probes_)
    if (probe.device == device) pieces.push_back({probe.source, probe.bytes});
  return pieces;
}

void Probes::arrived(int device, const char* noted) {
  for (std::size_t p = 0; p < probes_.size(); ++p) {
    if (probes_[p].device != device) continue;
    std::memcpy(&noted_[p * static_cast<std::size_t>(kBytes)], noted, static_cast<std::size_t>(probes_[p].bytes));
    noted += probes_[p].bytes;
  }
}

// A probe may lie in two copies: each is compared as far as it goes.
void Probes::landed(std::int64_t span, std::int64_t begin, const char* copy, std::int64_t bytes,
                    std::vector<std::int64_t>& changed) {
  for (; next_ < probes_.size() && probes_[next_].span <= span; ++next_) {
    const Probe& p = probes_[next_];
    if (p.span < span) continue;
    const std::int64_t probe_begin = p.end - p.bytes, from = std::max(begin, probe_begin), to = std::min(begin + bytes, p.end);
    if (from < to) {
      const char* noted = &noted_[next_ * static_cast<std::size_t>(kBytes)] + (from - probe_begin);
      const bool same = std::memcmp(noted, copy + (from - begin), static_cast<std::size_t>(to - from)) == 0;
      if (!same && (changed.empty() || changed.back() != span)) changed.push_back(span);
    }
    if (p.end > begin + bytes) return;
  }
}

void Probes::passed(std::int64_t span, std::int64_t bytes, std::vector<std::int64_t>& changed) {
  for (; next_ < probes_.size(); ++next_) {
    const Probe& p = probes_[next_];
    if (p.span > span || (p.span == span && p.end > bytes)) return;
    const bool same =
        std::memcmp(&noted_[next_ * static_cast<std::size_t>(kBytes)], p.source, static_cast<std::size_t>(p.bytes)) == 0;
    if (!same && (changed.empty() || changed.back() != p.span)) changed.push_back(p.span);
  }
}

std::vector<std::uint64_t> probe_digests(const std::vector<Span>& spans) {
  std::vector<std::uint64_t> digests;
  digests.reserve(spans.size());
  for (const Span& span : spans) {
    std::uint64_t digest = mixed(static_cast<std::uint64_t>(span.bytes));
    for_each_probe(span.bytes, 0, [&](std::int64_t offset, std::int64_t bytes) {
      std::uint64_t words[Probes::kBytes / 8] = {};
      std::memcpy(words, static_cast<const char*>(span.data) + offset, static_cast<std::size_t>(bytes));
      for (const std::uint64_t word : words) digest = mixed(digest ^ word);
    });
    digests.push_back(digest);
  }
  return digests;
}

}  // namespace hetsp::checkpoint
