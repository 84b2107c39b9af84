#include "hetsp/checkpoint/checksum.h"

#include "hetsp/base/error.h"
#include "hetsp/checkpoint/crc32c.h"

namespace hetsp::checkpoint {

namespace {

void append_hex(std::string& text, unsigned char byte) {
  constexpr char kDigits[] = "0123456789abcdef";
  text += kDigits[byte >> 4];
  text += kDigits[byte & 15];
}

}  // namespace

const char* name(Checksum checksum) { return checksum == Checksum::xxh3_128 ? "xxh3-128" : "crc32c"; }

Checksum checksum_of(const std::string& text) {
  for (const Checksum checksum : {Checksum::xxh3_128, Checksum::crc32c})
    if (text == name(checksum)) return checksum;
  throw InvalidArgument(concat("checksum is \"", text, "\", must be one of xxh3-128, crc32c"));
}

bool available(Checksum checksum) { return checksum == Checksum::crc32c || xxh3(Isa::portable) != nullptr; }

Checksum best_checksum() { return available(Checksum::xxh3_128) ? Checksum::xxh3_128 : Checksum::crc32c; }

Hasher::Hasher(Checksum checksum, Isa isa) : checksum_(checksum) {
  require(available(checksum), "checksum ", name(checksum), " is not in this build (xxHash was not found), only crc32c");
  if (checksum == Checksum::xxh3_128) xxh3_ = xxh3(isa);
  reset();
}

void Hasher::reset() {
  crc_ = 0;
  if (xxh3_ != nullptr) xxh3_->reset(state_);
}

void Hasher::update(const void* data, std::size_t bytes) {
  if (bytes == 0) return;
  if (xxh3_ != nullptr) {
    xxh3_->update(state_, data, bytes);
  } else {
    crc_ = crc32c(crc_, data, bytes);
  }
}

std::string Hasher::hex() const {
  std::string text;
  if (xxh3_ != nullptr) {
    unsigned char canonical[16];
    xxh3_->digest(state_, canonical);
    for (const unsigned char byte : canonical) append_hex(text, byte);
  } else {
    for (int shift = 24; shift >= 0; shift -= 8) append_hex(text, static_cast<unsigned char>(crc_ >> shift));
  }
  return text;
}

std::string hash(Checksum checksum, const void* data, std::size_t bytes) {
  Hasher hasher(checksum);
  hasher.update(data, bytes);
  return hasher.hex();
}

}  // namespace hetsp::checkpoint
