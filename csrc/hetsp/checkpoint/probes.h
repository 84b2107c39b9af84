// The guard against a source that changes between save() and its copy: a few bytes of every stretch, noted at save() and
// compared when the copy has passed.
//
// Each stretch of at most 4 MiB of a span has three probes of 64 bytes: its ends and a place between that differs from save to
// save. An optimizer, a broadcast or a load changes nearly every element, so it is seen with certainty; a write of a few
// elements is seen with probability (bytes changed + 64) / (bytes of the stretch), and only a second hash of the source
// (Capture::rehash) finds it always.
#pragma once

#include <cstdint>
#include <vector>

namespace hetsp::checkpoint {

struct Span {
  const void* data = nullptr;
  std::int64_t bytes = 0;
  std::int64_t group = 0;  // spans are released to their writer by group
};

class Probes {
 public:
  static constexpr std::int64_t kStretch = std::int64_t{4} << 20;  // bytes
  static constexpr std::int64_t kBytes = 64;                       // of one probe

  Probes() = default;
  Probes(const std::vector<Span>& spans, std::uint64_t save);  // reads the sources now

  // The copy has passed the first `bytes` of span `span` and all spans before it. Appends to `changed` each span of which a
  // probe that was passed since the last call differs, once. To be called in the order of copying.
  void passed(std::int64_t span, std::int64_t bytes, std::vector<std::int64_t>& changed);

 private:
  struct Probe {
    const char* source;
    std::int64_t span, end;  // end: offset in the span behind its last byte
    std::int32_t bytes;
  };
  std::vector<Probe> probes_;  // in the order of copying
  std::vector<char> noted_;    // kBytes each
  std::size_t next_ = 0;
};

// One number per span from probes at fixed places: ranks that hold the same content get the same numbers.
[[nodiscard]] std::vector<std::uint64_t> probe_digests(const std::vector<Span>& spans);

}  // namespace hetsp::checkpoint
