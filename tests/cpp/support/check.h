// A test harness of one header, so that the C++ tests build on a machine with nothing but a compiler and CMake.
//
//   TEST(name) { CHECK(a == b); CHECK_NEAR(x, y, 1e-6); CHECK_THROWS(Error, "part of the message", call()); }
//   TEST_MAIN()
//
// A failed check is printed with its values and the test goes on; the process exits 1 if any failed, and an empty run is
// a failure. `program NAME...` runs only the tests whose names contain one of the NAMEs.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <sstream>
#include <string>
#include <vector>

namespace check {

struct Test {
  const char* name;
  std::function<void()> body;
};

inline std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}

inline int& failures() {
  static int count = 0;
  return count;
}

inline std::string& context() {  // printed with each failure; set it to the seed or case at hand
  static std::string text;
  return text;
}

inline void fail(const char* file, int line, const std::string& what) {
  ++failures();
  std::fprintf(stderr, "%s:%d: %s%s%s\n", file, line, what.c_str(), context().empty() ? "" : "  in ", context().c_str());
}

struct Registration {
  Registration(const char* name, std::function<void()> body) { tests().push_back({name, std::move(body)}); }
};

template <class Exception, class Call>
void throws(const char* file, int line, const char* part, Call call) {
  try {
    call();
  } catch (const Exception& error) {
    if (std::string(error.what()).find(part) == std::string::npos)
      fail(file, line, std::string("message \"") + error.what() + "\" lacks \"" + part + "\"");
    return;
  } catch (const std::exception& error) {
    return fail(file, line, std::string("threw another exception: ") + error.what());
  }
  fail(file, line, "did not throw");
}

inline int run(int argc, char** argv) {
  int ran = 0;
  for (const auto& test : tests()) {
    bool wanted = argc < 2;
    for (int i = 1; i < argc; ++i) wanted |= std::strstr(test.name, argv[i]) != nullptr;
    if (!wanted) continue;
    ++ran;
    const int before = failures();
    context().clear();
    try {
      test.body();
    } catch (const std::exception& error) {
      fail(test.name, 0, std::string("uncaught exception: ") + error.what());
    }
    std::printf("%s %s\n", failures() == before ? "ok  " : "FAIL", test.name);
  }
  std::printf("%d tests, %d failed checks\n", ran, failures());
  return ran == 0 || failures() != 0;
}

}  // namespace check

#define TEST(name)                                                      \
  static void test_##name();                                            \
  static const check::Registration register_##name(#name, test_##name); \
  static void test_##name()
#define CHECK(condition)                                                        \
  do {                                                                          \
    if (!(condition)) check::fail(__FILE__, __LINE__, "CHECK(" #condition ")"); \
  } while (false)
#define CHECK_EQ(a, b)                                                      \
  do {                                                                      \
    const auto check_a = (a);                                               \
    const auto check_b = (b);                                               \
    if (!(check_a == check_b)) {                                            \
      std::ostringstream check_text;                                        \
      check_text << #a " == " #b ": " << check_a << " against " << check_b; \
      check::fail(__FILE__, __LINE__, check_text.str());                    \
    }                                                                       \
  } while (false)
#define CHECK_NEAR(a, b, tolerance)                                                                         \
  do {                                                                                                      \
    const double check_a = (a), check_b = (b);                                                              \
    if (!(check_a == check_b || std::abs(check_a - check_b) <= (tolerance))) {                              \
      std::ostringstream check_text;                                                                        \
      check_text.precision(17);                                                                             \
      check_text << #a " near " #b ": " << check_a << " against " << check_b << " (" << (tolerance) << ")"; \
      check::fail(__FILE__, __LINE__, check_text.str());                                                    \
    }                                                                                                       \
  } while (false)
#define CHECK_THROWS(exception, part, call) check::throws<exception>(__FILE__, __LINE__, part, [&] { (void)(call); })
#define TEST_MAIN() \
  int main(int argc, char** argv) { return check::run(argc, argv); }
