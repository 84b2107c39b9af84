// Takes the place of the kernel's own file of this name: a wait of about a second is a deadlock, and ends the launch with an
// error instead of hanging.
#pragma once

namespace hetsp::attention::cuda::hopper {

__device__ inline void wait(Barrier& barrier, unsigned parity) {
  const std::uint32_t address = shared_address(&barrier);
  for (const long long begin = clock64();;) {
    std::uint32_t done = 0;
    asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
                 : "=r"(done)
                 : "r"(address), "r"(parity)
                 : "memory");
    if (done != 0) return;
    if (clock64() - begin > 2'000'000'000ll) __trap();
  }
}

}  // namespace hetsp::attention::cuda::hopper
