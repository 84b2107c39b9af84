#include "hetsp/checkpoint/probes.h"

#include <random>
#include <set>
#include <string>

#include "support/check.h"

using namespace hetsp::checkpoint;

namespace {

std::vector<Span> spans_of(const std::vector<std::string>& sources) {
  std::vector<Span> spans;
  for (const auto& source : sources) spans.push_back({source.data(), static_cast<std::int64_t>(source.size()), 0});
  return spans;
}

void pass_all(Probes& probes, const std::vector<std::string>& sources, std::vector<std::int64_t>& changed) {
  for (std::size_t s = 0; s < sources.size(); ++s)
    probes.passed(static_cast<std::int64_t>(s), static_cast<std::int64_t>(sources[s].size()), changed);
}

}  // namespace

TEST(what_stood_still_is_not_reported) {
  std::vector<std::string> sources{"", "x", std::string(200, 'a'), std::string(9 << 20, 'b'), ""};
  Probes probes(spans_of(sources), 1);
  std::vector<std::int64_t> changed;
  pass_all(probes, sources, changed);
  CHECK(changed.empty());
  Probes none;
  none.passed(0, 100, changed);
  CHECK(changed.empty());
}

TEST(a_rewritten_span_is_reported_once) {
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    std::mt19937_64 random(seed);
    const std::size_t sizes[] = {0, 1, 63, 64, 65, 128, 192, 193, 1000, 70000, 4 << 20, (4 << 20) + 1, 9 << 20};
    std::vector<std::string> sources(1 + random() % 6);
    for (auto& source : sources) source.assign(sizes[random() % std::size(sizes)], static_cast<char>(random()));
    Probes probes(spans_of(sources), seed);
    std::vector<std::int64_t> expected, changed;
    for (std::size_t s = 0; s < sources.size(); ++s) {
      if (random() % 2 != 0 || sources[s].empty()) continue;
      for (char& c : sources[s]) c = static_cast<char>(c + 1);
      expected.push_back(static_cast<std::int64_t>(s));
    }
    for (std::size_t s = 0; s < sources.size(); ++s)  // in steps, as the copy goes
      for (std::size_t done = 0; done < sources[s].size();) {
        done = std::min(sources[s].size(), done + 1 + random() % 300000);
        probes.passed(static_cast<std::int64_t>(s), static_cast<std::int64_t>(done), changed);
      }
    CHECK(changed == expected);
  }
}

TEST(a_change_behind_the_copy_is_no_fault) {
  std::vector<std::string> sources{std::string(1000, 'a'), std::string(1000, 'b')};
  Probes probes(spans_of(sources), 1);
  std::vector<std::int64_t> changed;
  probes.passed(0, 1000, changed);
  sources[0].assign(1000, 'z');  // released to the optimizer
  probes.passed(1, 1000, changed);
  CHECK(changed.empty());
}

TEST(every_byte_of_a_tiny_span_counts) {
  for (std::size_t bytes : {1U, 64U, 100U, 192U})
    for (std::size_t at = 0; at < bytes; ++at) {
      std::vector<std::string> sources{std::string(bytes, 'a')};
      Probes probes(spans_of(sources), 3);
      sources[0][at] = 'b';
      std::vector<std::int64_t> changed;
      pass_all(probes, sources, changed);
      CHECK_EQ(changed.size(), 1U);
    }
}

TEST(the_middle_place_differs_from_save_to_save) {
  // One byte of a megabyte is changed: a given save sees it rarely, but not the same saves miss it for every byte.
  std::vector<std::string> sources{std::string(4096, 'a')};
  std::set<std::size_t> seen;
  for (std::uint64_t save = 0; save < 400; ++save)
    for (const std::size_t at : {100U, 1000U, 2000U, 3000U, 4000U}) {
      Probes probes(spans_of(sources), save);
      sources[0][at] = 'b';
      std::vector<std::int64_t> changed;
      pass_all(probes, sources, changed);
      if (!changed.empty()) seen.insert(at);
      sources[0][at] = 'a';
    }
  CHECK_EQ(seen.size(), 5U);
}

TEST(digests_agree_where_content_does) {
  const std::vector<std::string> a{std::string(5 << 20, 'a'), "", "xyz"}, b{std::string(5 << 20, 'a'), "", "xyz"};
  CHECK(probe_digests(spans_of(a)) == probe_digests(spans_of(b)));
  auto c = a;
  for (char& x : c[0]) x = 'c';
  c[2] = "xyw";
  const auto before = probe_digests(spans_of(a)), after = probe_digests(spans_of(c));
  CHECK(before[0] != after[0]);
  CHECK_EQ(before[1], after[1]);
  CHECK(before[2] != after[2]);
  CHECK(probe_digests(spans_of({std::string(3, '\0')})) != probe_digests(spans_of({std::string(4, '\0')})));
}

// Of a device: the probes come later and are compared with the copy, in whatever pieces that lands, against a plain comparison
// of the stretches.
TEST(copies_from_a_device_are_compared_with_what_was_noted) {
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    std::mt19937_64 random(seed);
    const std::size_t sizes[] = {0, 1, 63, 64, 65, 192, 193, 1000, 70000, 4 << 20, (4 << 20) + 1};
    std::vector<std::string> sources(1 + random() % 6);
    for (auto& source : sources) source.assign(sizes[random() % std::size(sizes)], static_cast<char>(random()));
    std::vector<Span> spans = spans_of(sources);
    for (Span& span : spans) span.device = 3, span.eager = random() % 5 == 0;
    Probes probes(spans, seed);
    std::string noted;
    for (const auto& piece : probes.on_device(3)) noted.append(piece.from, static_cast<std::size_t>(piece.bytes));
    CHECK(probes.on_device(2).empty());
    probes.arrived(2, nullptr);
    probes.arrived(3, noted.data());
    std::vector<std::int64_t> expected, changed;
    for (std::size_t s = 0; s < sources.size(); ++s) {
      std::string copy = sources[s];
      const std::size_t from = random() % 3 == 0   ? 0
                               : random() % 2 == 0 ? copy.size() - std::min<std::size_t>(copy.size(), 1)
                                                   : copy.size();
      for (std::size_t i = from; i < copy.size(); ++i) copy[i] = static_cast<char>(copy[i] + 1);  // all, the last byte, none
      if (from < copy.size() && !spans[s].eager) expected.push_back(static_cast<std::int64_t>(s));
      for (std::size_t done = 0; done < copy.size();) {
        const std::size_t bytes = std::min(copy.size() - done, 1 + static_cast<std::size_t>(random() % 300000));
        const std::string piece = copy.substr(done, bytes);
        probes.landed(static_cast<std::int64_t>(s), static_cast<std::int64_t>(done), piece.data(),
                      static_cast<std::int64_t>(bytes), changed);
        done += bytes;
      }
    }
    CHECK(changed == expected);
  }
}

TEST_MAIN()
