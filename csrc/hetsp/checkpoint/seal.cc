#include "hetsp/checkpoint/seal.h"

#include <fcntl.h>

#include "hetsp/base/error.h"
#include "hetsp/checkpoint/corrupt.h"
#include "hetsp/checkpoint/file.h"

namespace hetsp::checkpoint {

namespace {

// The last line of `text` as a seal, or why it is none.
struct LastLine {
  std::optional<Seal> seal;
  std::string problem;
  std::size_t begin = 0;  // where the line begins
};

LastLine last_line(std::string_view text) {
  if (text.empty()) return {{}, "is empty"};
  if (text.find_first_not_of('\0') == std::string_view::npos) return {{}, concat("is ", text.size(), " zero bytes")};
  if (text.back() != '\n')
    return {{}, concat("ends after ", text.size(), " bytes without the newline of a seal: cut or overwritten")};
  const auto before = text.size() < 2 ? std::string_view::npos : text.rfind('\n', text.size() - 2);
  if (before == std::string_view::npos) return {{}, "has one line only, and no seal"};
  const std::string_view line = text.substr(before + 1, text.size() - before - 2);
  for (const Checksum checksum : {Checksum::xxh3_128, Checksum::crc32c}) {
    const std::string start = std::string(name(checksum)) + " ";
    if (!line.starts_with(start)) continue;
    const std::string_view digest = line.substr(start.size());
    const std::size_t digits = checksum == Checksum::xxh3_128 ? 32 : 8;
    if (digest.size() == digits && digest.find_first_not_of("0123456789abcdef") == std::string_view::npos)
      return {Seal{checksum, std::string(digest)}, {}, before + 1};
  }
  return {{}, "does not end with a seal (a line with the name and the digits of a checksum): cut or overwritten"};
}

}  // namespace

std::string Seal::line() const { return std::string(name(checksum)) + " " + digest; }

std::string seal(std::string_view text, Checksum checksum) {
  require(static_cast<std::int64_t>(text.size()) < kLargestSealed - 64, "a text of ", text.size(),
          " bytes cannot be sealed, must be less than ", kLargestSealed - 64);
  require(!last_line(text).seal, "this text of ", text.size(), " bytes is sealed already");
  std::string sealed(text);
  sealed += '\n';
  sealed += Seal{checksum, hash(checksum, sealed.data(), sealed.size())}.line() + '\n';
  return sealed;
}

Seal seal_of(std::string_view sealed, const std::string& path) {
  const LastLine last = last_line(sealed);
  if (!last.seal) throw Corrupt(concat(path, " ", last.problem));
  if (!available(last.seal->checksum))
    throw Corrupt(concat(path, " is sealed with ", name(last.seal->checksum), ", which this build cannot compute"));
  const std::string found = hash(last.seal->checksum, sealed.data(), last.begin);
  if (found != last.seal->digest)
    throw Corrupt(concat(path, " is damaged: its seal says ", last.seal->line(), ", its ", last.begin, " bytes have ", found));
  return *last.seal;
}

std::string unseal(std::string_view sealed, const std::string& path, std::optional<Checksum> expected) {
  const Seal seal = seal_of(sealed, path);
  if (expected && *expected != seal.checksum)
    throw Corrupt(concat(path, " is sealed with ", name(seal.checksum), ", must be ", name(*expected)));
  return std::string(sealed.substr(0, sealed.size() - seal.line().size() - 2));
}

std::string read_text(FileSystem& files, const std::string& path) {
  File file(files, path, O_RDONLY);
  const FileStatus status = file.status();
  if (status.directory) throw Corrupt(concat(path, " is a directory, must be a file"));
  if (status.bytes > kLargestSealed)
    throw Corrupt(concat(path, " has ", status.bytes, " bytes, a sealed text has at most ", kLargestSealed));
  std::string text(static_cast<std::size_t>(status.bytes), '\0');
  text.resize(static_cast<std::size_t>(file.read(text.data(), status.bytes, 0)));
  return text;
}

std::string read_sealed(FileSystem& files, const std::string& path, std::optional<Checksum> expected) {
  return unseal(read_text(files, path), path, expected);
}

}  // namespace hetsp::checkpoint
