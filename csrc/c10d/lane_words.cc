#include "c10d/lane_words.h"

#include <algorithm>
#include <cctype>

namespace hetsp::routed {

std::string lane_words(const std::string& text) {
  std::string words = text.substr(0, text.find('\n'));
  if (words.starts_with('[')) {  // [file.cc:553], where an address has no such dot before its colon
    const auto end = words.find("] ");
    const auto file = words.find(".cc:");
    if (end != std::string::npos && file < end) words.erase(0, end + 2);
  }
  words = words.substr(0, words.find(". "));
  std::erase_if(words, [](unsigned char letter) { return letter < 0x20 || letter > 0x7e; });
  const auto ends = [](char letter) { return letter == ' ' || letter == '.' || letter == ':'; };
  while (!words.empty() && ends(words.back())) words.pop_back();
  words.erase(0, std::min(words.find_first_not_of(' '), words.size()));
  if (words.empty()) return "connection broken";
  if (words.size() == 1 || std::isupper(static_cast<unsigned char>(words[1])) == 0)
    words[0] = static_cast<char>(std::tolower(static_cast<unsigned char>(words[0])));
  return words;
}

}  // namespace hetsp::routed
