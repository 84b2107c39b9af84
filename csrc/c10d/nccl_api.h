// The part of NCCL's C interface that the lanes use, declared after its documentation ("NCCL API", docs.nvidia.com/deeplearning
// /nccl): so nothing of NCCL is needed to build, and any libnccl of a process will do.
#pragma once

#include <climits>
#include <cstddef>
#include <cstdint>

namespace hetsp::routed::nccl {

struct Comm;  // opaque

using Result = int;
constexpr Result success = 0, in_progress = 7;

struct UniqueId {  // of a communicator; passed by value
  char bytes[128];
};

constexpr int int8 = 0;  // of ncclDataType_t: frames are bytes

// ncclConfig_t as 2.18 has it; later ones have grown at its end, and take one that says its size and version.
struct Config {
  static constexpr int undefined = INT_MIN;
  std::size_t size = sizeof(Config);
  std::uint32_t magic = 0xcafebeef;
  std::uint32_t version = 21800;
  int blocking = undefined;
  int cga_cluster_size = undefined;
  int min_ctas = undefined;
  int max_ctas = undefined;
  const char* net_name = nullptr;
  int split_share = undefined;
  int padding = undefined;  // where later versions have trafficClass
};
static_assert(sizeof(Config) == 48);

struct Api {
  Result (*get_version)(int* version);
  Result (*get_unique_id)(UniqueId* id);
  Result (*comm_init_rank_config)(Comm** comm, int ranks, UniqueId id, int rank, Config* config);
  Result (*comm_get_async_error)(Comm* comm, Result* error);
  Result (*comm_abort)(Comm* comm);
  Result (*send)(const void* from, std::size_t count, int type, int peer, Comm* comm, void* stream);
  Result (*receive)(void* to, std::size_t count, int type, int peer, Comm* comm, void* stream);
  const char* (*get_error_string)(Result result);
  const char* (*get_last_error)(Comm* comm);
};

}  // namespace hetsp::routed::nccl
