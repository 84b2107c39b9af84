#include "hetsp/comm/credits.h"

#include <map>
#include <random>
#include <string>

#include "support/check.h"

using namespace hetsp::comm;

TEST(askers_take_turns) {
  Lender lender;
  lender.want(3, 2, false);
  lender.want(1, 5, false);
  std::vector<int> turns;
  while (const auto asker = lender.next(false, true)) {
    turns.push_back(*asker);
    lender.grant(*asker);
  }
  CHECK((turns == std::vector<int>{3, 1, 3, 1, 1, 1, 1}));
  CHECK_EQ(lender.granted(), std::size_t{7});
  lender.arrived(3);
  lender.give_back(1, 4);
  CHECK_EQ(lender.granted(), std::size_t{2});
}

TEST(own_messages_come_first_and_those_of_ranks_without_a_nic_beside_them) {
  Lender lender;
  lender.want(3, 2, false);
  CHECK_EQ(lender.next(true, true).value(), Lender::self);
  lender.grant(Lender::self);
  CHECK_EQ(lender.next(true, true).value(), Lender::self);
  lender.want(2, 9, true);
  std::map<int, int> turns;
  for (int i = 0; i < 8; ++i) {
    const int asker = lender.next(true, true).value();
    ++turns[asker];
    lender.grant(asker);
  }
  CHECK_EQ(turns[Lender::self], 4);
  CHECK_EQ(turns[2], 4);
  lender.withdraw(2);
  CHECK_EQ(lender.next(false, true).value(), 3);
  CHECK(!lender.next(false, false));
}

TEST(a_rail_is_lent_slowly_after_its_owner_has_used_it) {
  Lender lender;
  lender.want(3, 100, false);
  std::size_t now = 0;
  std::vector<std::size_t> windows;
  for (int through = 0; through < 5; ++through) {  // each is through before the next is looked at
    for (; now < lender.lends(1, now); ++now) lender.grant(lender.next(false, true).value());
    windows.push_back(now--);
  }
  CHECK((windows == std::vector<std::size_t>{1, 2, 3, 4, 5}));
  lender.grant(lender.next(true, true).value());
  CHECK_EQ(lender.lends(1, 0), std::size_t{1});
  CHECK_EQ(lender.lends(4, 3), std::size_t{4});  // a fast rail begins with what its turn-around holds
  lender.grant(3);
  lender.want(5, 1, true);
  lender.grant(5);  // at home here
  CHECK_EQ(lender.lends(1, 0), std::size_t{1});
}

TEST(who_is_gone_and_what_is_void_is_not_reserved) {
  Lender lender;
  lender.want(3, 2, false);
  lender.grant(3);
  lender.forget(3);
  CHECK_EQ(lender.granted(), std::size_t{0});
  lender.want(4, 2, false);
  lender.grant(4);
  lender.clear();
  CHECK(lender.granted() == 0 && !lender.wanted());
  lender.arrived(4);  // granted before the rail went down
  CHECK_EQ(lender.granted(), std::size_t{0});
}

TEST(a_purse_asks_for_no_more_than_it_needs) {
  Purse purse;
  CHECK_EQ(purse.ask(3), std::size_t{3});
  CHECK_EQ(purse.ask(3), std::size_t{0});
  CHECK(!purse.spend());
  purse.granted(2);
  CHECK(purse.spend());
  CHECK_EQ(purse.credit(), std::size_t{1});
  CHECK_EQ(purse.give_back(), std::size_t{1});
  CHECK(purse.withdraw());
  CHECK(!purse.withdraw());
  CHECK(purse.ask(1000) <= 16);
}

// Both ends over a connection that keeps order: whatever is asked, withdrawn and given back, in the end nothing stays reserved,
// and no more arrives than was granted.
TEST(random_traffic_leaves_nothing_reserved) {
  for (unsigned seed = 0; seed < 500; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    std::mt19937 random(seed);
    Lender lender;
    Purse purse;
    std::size_t chunks = random() % 60, arrived = 0, sent = 0;
    std::vector<std::pair<char, std::size_t>> up, down;  // messages under way
    for (int step = 0; step < 3000; ++step) {
      switch (random() % 4) {
        case 0:
          for (; chunks > 0 && purse.spend(); ++sent) --chunks, up.emplace_back('c', 1);
          if (chunks > 0) {
            if (const auto more = purse.ask(chunks)) up.emplace_back('w', more);
          } else {
            if (const auto unused = purse.give_back()) up.emplace_back('b', unused);
            if (purse.withdraw()) up.emplace_back('x', 0);
          }
          if (step < 1000 && random() % 50 == 0) chunks += random() % 20;
          break;
        case 1:
          if (up.empty()) break;
          if (up.front().first == 'c') lender.arrived(5), ++arrived;
          if (up.front().first == 'w') lender.want(5, up.front().second, false);
          if (up.front().first == 'b') lender.give_back(5, up.front().second);
          if (up.front().first == 'x') lender.withdraw(5);
          up.erase(up.begin());
          break;
        case 2:
          if (const auto asker = lender.next(random() % 4 == 0, lender.granted() < 3); asker && *asker == 5) {
            lender.grant(5);
            down.emplace_back('g', 1);
          }
          CHECK(lender.granted() <= 3);
          break;
        default:
          if (down.empty()) break;
          purse.granted(down.front().second);
          down.erase(down.begin());
      }
    }
    CHECK_EQ(chunks, std::size_t{0});
    CHECK_EQ(sent, arrived + up.size());
    CHECK_EQ(lender.granted(), std::size_t{0});
    CHECK_EQ(purse.credit(), std::size_t{0});
  }
}

TEST_MAIN()
