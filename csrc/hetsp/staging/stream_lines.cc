// Compiled once per instruction set, with its options and its namespace HETSP_ISA (CMakeLists.txt). Only what lies in that
// namespace may be defined here: the linker would keep one copy of anything else for all.
#include "hetsp/staging/stream_lines.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace hetsp::staging::HETSP_ISA {

void stream_lines(char* to, const char* from, std::size_t bytes) {
#if defined(__AVX512F__)
  for (std::size_t i = 0; i < bytes; i += 64)
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to + i), _mm512_loadu_si512(from + i));
  _mm_sfence();  // these stores are not ordered by the locks that follow
#elif defined(__AVX2__)
  for (std::size_t i = 0; i < bytes; i += 64) {
    const __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + i));
    const __m256i b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + i + 32));
    _mm256_stream_si256(reinterpret_cast<__m256i*>(to + i), a);
    _mm256_stream_si256(reinterpret_cast<__m256i*>(to + i + 32), b);
  }
  _mm_sfence();
#elif defined(__x86_64__)
  for (std::size_t i = 0; i < bytes; i += 64) {
    const auto* source = reinterpret_cast<const __m128i*>(from + i);
    auto* target = reinterpret_cast<__m128i*>(to + i);
    const __m128i a = _mm_loadu_si128(source), b = _mm_loadu_si128(source + 1);
    const __m128i c = _mm_loadu_si128(source + 2), d = _mm_loadu_si128(source + 3);
    _mm_stream_si128(target, a);
    _mm_stream_si128(target + 1, b);
    _mm_stream_si128(target + 2, c);
    _mm_stream_si128(target + 3, d);
  }
  _mm_sfence();
#else
  __builtin_memcpy(to, from, bytes);
#endif
}

}  // namespace hetsp::staging::HETSP_ISA
