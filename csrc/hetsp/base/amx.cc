#include "hetsp/base/amx.h"

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <cerrno>
#include <cstdint>
#include <cstring>

#include "hetsp/base/error.h"

namespace hetsp::amx {

#if defined(__x86_64__) && defined(__linux__)

namespace {

constexpr std::uint64_t kBf16 = 1U << 22, kTile = 1U << 24;               // CPUID.(7,0).EDX
constexpr std::uint64_t kTileConfig = 1U << 17, kTileData = 1U << 18;     // XCR0, and Linux' numbers of features
constexpr long kGetSupported = 0x1021, kRequest = 0x1023,
               kTileDataFeature = 18;  // arch_prctl: ARCH_GET_XCOMP_SUPP, ARCH_REQ_XCOMP_PERM

bool in_cpu() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d & kBf16) != 0 && (d & kTile) != 0;
}

bool saved() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & bit_OSXSAVE) == 0) return false;
  std::uint32_t low = 0, high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (low & kTileConfig) != 0 && (low & kTileData) != 0;
}

bool offered() {
  std::uint64_t features = 0;
  return syscall(SYS_arch_prctl, kGetSupported, &features) == 0 && (features & kTileData) != 0;
}

std::string ask() {
  if (syscall(SYS_arch_prctl, kRequest, kTileDataFeature) == 0) return {};
  return concat(
      "the kernel refuses this process the tile registers (arch_prctl(ARCH_REQ_XCOMP_PERM, 18): ", std::strerror(errno), ")");
}

}  // namespace

Sight look() { return {in_cpu(), saved() && offered()}; }

#else

namespace {
std::string ask() { return "AMX is known on Linux on x86-64 alone"; }
}  // namespace

Sight look() { return {false, false}; }

#endif

std::string missing(const Sight& sight) {
  if (!sight.cpu) return "the CPU has no AMX-BF16 (CPUID leaf 7)";
  if (!sight.kernel) return "the CPU has AMX-BF16, but the kernel gives no tile registers (arch_prctl(ARCH_GET_XCOMP_SUPP))";
  return {};
}

const std::string& refusal() {
  static const std::string refused = ask();
  return refused;
}

}  // namespace hetsp::amx
