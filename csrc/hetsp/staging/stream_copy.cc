#include "hetsp/staging/stream_copy.h"

#include <cstdint>
#include <cstring>

#include "hetsp/staging/stream_lines.h"

namespace hetsp::staging {

namespace {

constexpr std::size_t kLine = 64;
constexpr std::size_t kSmall = 4096;  // below, the wait for the stores to drain costs more than they save

void lines(char* to, const char* from, std::size_t bytes, Isa isa) {
  switch (isa) {
    case Isa::portable:
      return portable::stream_lines(to, from, bytes);
    case Isa::avx2:
      return avx2::stream_lines(to, from, bytes);
    case Isa::avx512:
    case Isa::avx512_bf16:
    case Isa::amx:
      return avx512::stream_lines(to, from, bytes);
  }
}

}  // namespace

void stream_copy(void* to, const void* from, std::size_t bytes, Isa isa) {
  auto* target = static_cast<char*>(to);
  const auto* source = static_cast<const char*>(from);
  if (bytes == 0) return;
  if (bytes < kSmall) {
    std::memcpy(target, source, bytes);
    return;
  }
  const std::size_t head = (kLine - reinterpret_cast<std::uintptr_t>(target) % kLine) % kLine;
  const std::size_t body = (bytes - head) / kLine * kLine;
  std::memcpy(target, source, head);
  lines(target + head, source + head, body, isa);
  std::memcpy(target + head + body, source + head + body, bytes - head - body);
}

}  // namespace hetsp::staging
