// How a thread waits for a barrier. Included by mbarrier.cuh alone. Programs that must not hang are compiled with
// -Itests/gpu/watchdog before -Icsrc, which puts a wait that gives up in place of this file.
#pragma once

namespace hetsp::attention::cuda::hopper {

// Until the phase of this parity has completed. On a fresh barrier wait(1) returns at once and wait(0) waits for the first.
__device__ inline void wait(Barrier& barrier, unsigned parity) {
  asm volatile(
      "{\n.reg .pred done;\nAGAIN:\nmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n@done bra DONE;\nbra "
      "AGAIN;\nDONE:\n}" ::"r"(shared_address(&barrier)),
      "r"(parity)
      : "memory");
}

}  // namespace hetsp::attention::cuda::hopper
