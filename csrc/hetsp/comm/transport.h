// What the engine asks of the wires, whoever provides them: Gloo, NCCL, or the simulator of the tests.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "hetsp/comm/frame.h"

namespace hetsp::comm {

using Time = std::int64_t;       // nanoseconds of a monotonic clock
using Operation = std::uint64_t;  // a send or a receive that a user posted; never 0
using Token = std::uint64_t;     // names a request until its answer; never 0, chosen by the engine
using Arrival = std::uint64_t;   // names an arrived payload until it is released; never 0, chosen by the transport

enum class Stage : std::uint8_t { control, local, rail };

// One rank's end of a connection.
struct Link {
  Stage stage = Stage::control;
  int peer = 0;  // rank at the other end
  int rail = 0;  // which rail, for Stage::rail; else 0
  friend bool operator==(const Link&, const Link&) = default;
};

struct Outcome {
  enum class Kind { done, invalid, peer_lost, aborted } kind = Kind::done;
  std::string what;  // for people, names ranks and sizes; empty when done
};

// Carries out what the engine wants. None of these calls back into the engine before it returns; each may be answered later by
// the event that it names. The engine and its transport live on one thread.
class Transport {
 public:
  virtual ~Transport() = default;

  // Sends a frame. Header and payload have been copied, or are needed no more, when the call returns: so an operation may end
  // at any time. Engine::on_sent(token) says that the wire took the frame, and comes for every send, also for one that a reset
  // or a broken link ended. Frames of one link arrive in order or not at all.
  virtual void send(Link link, const Header& header, std::span<const std::byte> payload, Token token) = 0;

  // Sends an arrived payload on over another link. The arrival stays held until the engine releases it, after on_sent(token).
  virtual void forward(Link link, const Header& header, Arrival arrival, Token token) = 0;

  // Copies the arrived payload to `destination`; answered by Engine::on_stored(token).
  virtual void store(Arrival arrival, std::byte* destination, Token token) = 0;

  // The engine needs the arrival no more; its buffer may receive again.
  virtual void release(Arrival arrival) = 0;

  // Gives up what is in flight on a rail and connects it afresh; answered by Engine::on_link_up with the next generation as
  // soon as both ends have it, however long that takes. Asking again before that changes nothing.
  virtual void reset(Link link) = 0;

  // A user's operation has ended; its memory is no longer touched.
  virtual void complete(Operation operation, const Outcome& outcome) = 0;
};

// Hears what happens on the wires: the engine, or a transport that stands between the engine and the wires.
class Listener {
 public:
  virtual ~Listener() = default;
  // `payload` may be empty, `arrival` is 0 then. Where is_on_device(header.type), the payload of a chunk is a device's memory.
  virtual void on_frame(Link link, const Header& header, Arrival arrival, std::span<const std::byte> payload) = 0;
  virtual void on_sent(Token token) = 0;
  virtual void on_stored(Token token) = 0;
  virtual void on_link_up(Link link, std::uint16_t generation) = 0;
  virtual void on_link_broken(Link link, const std::string& why) = 0;  // local, control: the peer is dead; rail: it is down
};

}  // namespace hetsp::comm
