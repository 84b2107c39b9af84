#include "hetsp/base/isa.h"

#include <algorithm>
#include <atomic>
#include <string>

#include "hetsp/base/amx.h"
#include "hetsp/base/error.h"

namespace hetsp {

namespace {

std::vector<Isa> detect() {
  std::vector<Isa> found{Isa::portable};
#if defined(__x86_64__)
  __builtin_cpu_init();  // checks the operating system's saved registers too, not the CPU alone
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("f16c")) return found;
  found.push_back(Isa::avx2);
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") || !__builtin_cpu_supports("avx512vl") ||
      !__builtin_cpu_supports("avx512dq"))
    return found;
  found.push_back(Isa::avx512);
  if (!__builtin_cpu_supports("avx512bf16")) return found;
  found.push_back(Isa::avx512_bf16);
  if (amx::missing(amx::look()).empty()) found.push_back(Isa::amx);
#endif
  return found;
}

bool supported(Isa isa) { return std::ranges::find(supported_isas(), isa) != supported_isas().end(); }

[[noreturn]] void refuse(std::string_view wanted) {
  std::string has;
  for (const Isa isa : supported_isas()) has += concat(has.empty() ? "" : ", ", name(isa));
  std::string why;
  for (const Isa isa : kAllIsas)
    if (wanted == name(isa)) why = concat("; ", missing(isa));
  throw InvalidArgument(concat("CPU capability is \"", wanted, "\", must be one of ", has, ": what this machine has", why));
}

std::atomic<Isa>& active() {
  static std::atomic<Isa> isa{best_isa()};
  return isa;
}

}  // namespace

const char* name(Isa isa) {
  switch (isa) {
    case Isa::portable:
      return "portable";
    case Isa::avx2:
      return "avx2";
    case Isa::avx512:
      return "avx512";
    case Isa::avx512_bf16:
      return "avx512_bf16";
    case Isa::amx:
      return "amx";
  }
  return "unknown";
}

const std::vector<Isa>& supported_isas() {
  static const std::vector<Isa> found = detect();
  return found;
}

Isa best_isa() {
  const std::vector<Isa>& here = supported_isas();
  const auto usable = std::find_if(here.rbegin(), here.rend(), [](Isa isa) { return missing(isa).empty(); });
  return *usable;  // `portable` at the latest
}

std::string missing(Isa isa) {
  if (supported(isa)) return isa == Isa::amx ? amx::refusal() : std::string();
  if (isa == Isa::amx) {
    const std::string gap = amx::missing(amx::look());
    return gap.empty() ? concat("the CPU has AMX-BF16, but not ", name(Isa::avx512_bf16)) : gap;
  }
  return "the CPU lacks it, or the kernel does not save its registers";
}

void permit(Isa isa) {
  if (isa != Isa::amx) return;
  require(amx::refusal().empty(), "CPU capability is \"", name(isa), "\", which this machine has; ", amx::refusal());
}

Isa supported_isa(std::string_view wanted) {
  for (const Isa isa : supported_isas())
    if (wanted == name(isa)) return isa;
  refuse(wanted);
}

void force_isa(std::optional<Isa> isa) {
  if (isa && !supported(*isa)) refuse(name(*isa));
  if (isa) permit(*isa);
  active().store(isa.value_or(best_isa()), std::memory_order_relaxed);
}

Isa active_isa() { return active().load(std::memory_order_relaxed); }

}  // namespace hetsp
