#include "c10d/lane_words.h"

#include <random>
#include <string>

#include "support/check.h"

using hetsp::routed::lane_words;

TEST(of_gloo_s_texts_the_fact_is_left) {
  CHECK_EQ(lane_words("[/__w/pytorch/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer "
                      "[127.0.0.1]:5042. This is typically caused by a remote worker crashing. Check the logs of the remote "
                      "worker before reporting an error. GLHF! \xf0\x9f\x8f\x96\xef\xb8\x8f"),
           std::string("connection closed by peer [127.0.0.1]:5042"));
  CHECK_EQ(lane_words("[../third_party/gloo/gloo/transport/tcp/buffer.cc:72] Timed out waiting 8000ms for send operation to "
                      "complete"),
           std::string("timed out waiting 8000ms for send operation to complete"));
  CHECK_EQ(lane_words("Application timeout caused pair closure"), std::string("application timeout caused pair closure"));
  CHECK_EQ(lane_words("writev [10.0.0.1]:80: Broken pipe\nException raised from f at x.cpp:3"),
           std::string("writev [10.0.0.1]:80: Broken pipe"));
}

TEST(what_is_no_text_of_gloo_stays_readable) {
  CHECK_EQ(lane_words("what arrived is no frame"), std::string("what arrived is no frame"));
  CHECK_EQ(lane_words("[10.0.0.1]:5042 refused"), std::string("[10.0.0.1]:5042 refused"));
  CHECK_EQ(lane_words("ECONNRESET."), std::string("ECONNRESET"));
  for (const char* nothing : {"", "\n", ". ", "\xf0\x9f\x8f\x96"})
    CHECK_EQ(lane_words(nothing), std::string("connection broken"));
}

TEST(any_text_becomes_one_printable_line) {
  std::mt19937 random(1);
  const std::string parts[] = {"[", "] ", ".cc:", ". ", "\n", "A", "b", " ", "\xf0\x9f", "\x01", "7"};
  for (int i = 0; i < 20000; ++i) {
    std::string text;
    for (auto left = random() % 12; left > 0; --left) text += parts[random() % std::size(parts)];
    check::context() = text;
    const std::string words = lane_words(text);
    CHECK(!words.empty() && words.front() != ' ' && words.back() != ' ');
    for (const char letter : words) CHECK(letter >= 0x20 && letter <= 0x7e);
  }
}

TEST_MAIN()
