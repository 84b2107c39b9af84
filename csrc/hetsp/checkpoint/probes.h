// The guard against a source that changes between save() and its copy: a few bytes of every stretch, noted at save() and
// compared when the copy has passed.
//
// Each stretch of at most 4 MiB of a span has three probes of 64 bytes: its ends and a place between that differs from save to
// save. An optimizer, a broadcast or a load changes nearly every element, so it is seen with certainty; a write of a few
// elements is seen with probability (bytes changed + 64) / (bytes of the stretch), and only a second hash of the source
// (Capture::rehash) finds it always.
//
// Of a device's memory the probes are gathered by the device when the save begins, and come with the first chunk. They are
// compared with the copy itself: a byte that changed after it was copied is right in the file.
#pragma once

#include <cstdint>
#include <vector>

#include "hetsp/checkpoint/span.h"
#include "hetsp/staging/gather.h"

namespace hetsp::checkpoint {

class Probes {
 public:
  static constexpr std::int64_t kStretch = std::int64_t{4} << 20;  // bytes
  static constexpr std::int64_t kBytes = 64;                       // of one probe

  Probes() = default;
  // Reads the sources of the host now. Eager spans have no probes: nobody writes to the copy that is made of them.
  Probes(const std::vector<Span>& spans, std::uint64_t save);

  [[nodiscard]] std::vector<staging::DevicePiece> on_device(int device) const;  // to be gathered now
  void arrived(int device, const char* noted);                                  // they, back to back

  // The copy has passed the first `bytes` of span `span` and all spans before it. Appends to `changed` each span of which a
  // probe that was passed since the last call differs, once. To be called in the order of copying. For spans of the host.
  void passed(std::int64_t span, std::int64_t bytes, std::vector<std::int64_t>& changed);
  // The same for a device's: [begin, begin + bytes) of the span has been copied to `copy`.
  void landed(std::int64_t span, std::int64_t begin, const char* copy, std::int64_t bytes, std::vector<std::int64_t>& changed);

 private:
  struct Probe {
    const char* source;
    std::int64_t span, end;  // end: offset in the span behind its last byte
    std::int32_t bytes;
    int device;
  };
  std::vector<Probe> probes_;  // in the order of copying
  std::vector<char> noted_;    // kBytes each
  std::size_t next_ = 0;
};

// One number per span from probes at fixed places: ranks that hold the same content get the same numbers.
[[nodiscard]] std::vector<std::uint64_t> probe_digests(const std::vector<Span>& spans);

}  // namespace hetsp::checkpoint
