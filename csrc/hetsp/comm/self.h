// What all parts of an endpoint stand on: which rank of which group it is, its time, its links and what its users have open.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "hetsp/comm/courier.h"
#include "hetsp/comm/engine.h"
#include "hetsp/comm/operations.h"
#include "hetsp/comm/route_table.h"
#include "hetsp/comm/router.h"

namespace hetsp::comm {

struct Self {
  const Topology topology;
  const int rank;
  const EngineOptions options;
  Transport& transport;
  Time now;
  Statistics counts;
  RouteTable routes;
  Courier courier;
  Router router;
  Operations operations;

  Self(const Topology& of, int self, const EngineOptions& given, Transport& wires, Time start)
      : topology(of),
        rank(self),
        options(given),
        transport(wires),
        now(start),
        routes(topology, rank),
        courier(topology, rank, {.job = options.job, .chunk_bytes = options.chunk_bytes, .control_bytes = options.eager_bytes},
                routes, transport, now),
        router(topology, rank, options.chunk_bytes, routes, courier, counts),
        operations(topology, rank, routes, transport) {}

  // A small frame to the peer's endpoint; `header` holds what its kind needs beside these.
  void reply(Kind kind, int peer, std::uint64_t transfer, Header header = {}, std::span<const std::byte> payload = {}) {
    header.kind = kind;
    header.transfer = transfer;
    header.destination = static_cast<std::uint16_t>(peer);
    courier.post(header, payload);
  }
};

}  // namespace hetsp::comm
