// What stands before every payload on every link.
#pragma once

#include <cstdint>

namespace hetsp::comm {

enum class Kind : std::uint8_t {
  offer,     // a message is there: its bytes, type and tag; small ones are inside
  accept,    // a receive waits for it
  refuse,    // the receive that met it has another size or type, or ended
  cancel,    // the source gave it up
  chunk,     // a piece of it
  received,  // the destination has stored these chunks (their numbers)
  fin,       // the destination has all of it
  want,      // a source asks a rail's owner for room, or gives room back
  grant,     // the owner gives it
  returned,  // a relay could not deliver a chunk: send it another way
  ack,       // of a hop: what arrived on it
  probe,     // are you there?
  rail,      // a rail went down or came up
  cause,     // a rank is lost
  goodbye,   // this rank leaves in peace
  lane,      // from one transport to the other: the engine never sees it
};

// Of Header::type: the bytes of the message are memory of a device.
constexpr std::uint16_t kOnDevice = 0x8000;
constexpr bool is_on_device(std::uint16_t type) { return (type & kOnDevice) != 0; }

// 64 bytes, in the byte order of the machine (groups of mixed byte order are refused when they form). Every frame names its
// epoch: the job (one incarnation of one group) and the transfer. A frame of another epoch is dropped and counted, never
// answered: a late duplicate must not touch memory that is used for something else by now.
struct Header {
  std::uint32_t magic = 0x68745370;  // "pSth"
  Kind kind = Kind::probe;
  std::uint8_t flags = 0;
  std::uint16_t generation = 0;  // of the rail that it crosses
  std::uint64_t job = 0;
  std::uint64_t transfer = 0;  // counts the messages from `source` to `destination`
  std::uint64_t value = 0;     // offset of a chunk in bytes, size of an offered message, ...
  std::int64_t tag = 0;        // of the user's message
  std::uint32_t hop = 0;       // sequence number on the rail or control link that it crosses; 0: not counted
  std::uint32_t length = 0;    // of the payload, bytes
  std::uint16_t source = 0;    // rank that the frame comes from
  std::uint16_t destination = 0;
  std::uint16_t rail = 0;
  std::uint16_t attempt = 0;
  std::uint32_t chunk = 0;
  std::uint16_t type = 0;  // code of the message's element type
  std::uint16_t way = 0;   // of a small frame: 1 + the rail that it takes; 0: the control link
};
static_assert(sizeof(Header) == 64);

}  // namespace hetsp::comm
