// hetsp_ext._core.CheckpointEngine and Capture: hetsp_ext.checkpoint is their face.
#include <nanobind/stl/map.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <map>
#include <tuple>

#include "bindings/register.h"
#include "hetsp/base/error.h"
#include "hetsp/checkpoint/engine.h"
#include "hetsp/checkpoint/io_probe.h"
#include "hetsp/device/device.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace hetsp::bindings {

namespace {

using namespace checkpoint;

// Waits for the disk without the interpreter's lock when it goes.
class PythonEngine final : public Engine {
 public:
  using Engine::Engine;
  PythonEngine(const PythonEngine&) = delete;
  PythonEngine& operator=(const PythonEngine&) = delete;
  ~PythonEngine() {
    const nb::gil_scoped_release release;
    abandon();
  }
};

IoMode io_mode_of(const std::string& text) {
  if (text == "auto") return IoMode::io_uring;
  for (const IoMode mode : {IoMode::io_uring, IoMode::direct, IoMode::buffered})
    if (text == name(mode)) return mode;
  throw InvalidArgument(concat("io is \"", text, "\", must be one of auto, io_uring, direct, buffered"));
}

Checksum checksum_choice(const std::string& text) { return text == "auto" ? best_checksum() : checksum_of(text); }

std::vector<Span> spans_of(const std::vector<std::uintptr_t>& addresses, const std::vector<std::int64_t>& sizes,
                           const std::vector<std::int64_t>& groups) {
  require(addresses.size() == sizes.size() && (groups.empty() || groups.size() == sizes.size()),
          "checkpoint: ", addresses.size(), " addresses, ", sizes.size(), " sizes and ", groups.size(),
          " groups; must be as many");
  std::vector<Span> spans(addresses.size());
  for (std::size_t i = 0; i < spans.size(); ++i) {
    require(sizes[i] >= 0 && (addresses[i] != 0 || sizes[i] == 0), "checkpoint: span ", i, " has ", sizes[i],
            " bytes at address ", addresses[i]);
    const auto* data = reinterpret_cast<const void*>(addresses[i]);  // NOLINT(performance-no-int-to-ptr): Tensor.data_ptr()
    spans[i] = {data, sizes[i], groups.empty() ? 0 : groups[i]};
  }
  return spans;
}

// devices: the number of each span's, kHost for the host's memory; eager: indices of spans.
void place_on_devices(std::vector<Span>& spans, const std::vector<int>& devices, const std::vector<std::int64_t>& eager) {
  require(devices.empty() || devices.size() == spans.size(), "checkpoint: ", devices.size(), " devices for ", spans.size(),
          " spans; must be as many or none");
  for (std::size_t i = 0; i < devices.size(); ++i) spans[i].device = devices[i];
  for (const std::int64_t i : eager) {
    require(i >= 0 && i < static_cast<std::int64_t>(spans.size()), "checkpoint: eager span ", i, ", there are ", spans.size());
    spans[static_cast<std::size_t>(i)].eager = true;
  }
}

// A stream of torch: Stream.cuda_stream.
std::map<int, void*> streams_of(const std::map<int, std::uintptr_t>& producers) {
  std::map<int, void*> streams;
  for (const auto& [device, stream] : producers)
    streams[device] = reinterpret_cast<void*>(stream);  // NOLINT(performance-no-int-to-ptr)
  return streams;
}

// Waits without the interpreter's lock, and looks in now and then whether Ctrl-C was pressed.
template <class Wait>
double patiently(const Wait& wait) {
  constexpr double kLook = 0.1;  // seconds
  for (double waited = 0;; waited += kLook) {
    std::optional<double> seconds;
    {
      const nb::gil_scoped_release release;
      seconds = wait(kLook);
    }
    if (seconds) return waited + *seconds;
    if (PyErr_CheckSignals() != 0) throw nb::python_error();
  }
}

void register_capture(nb::module_& m) {
  nb::class_<Capture>(m, "Capture")
      .def(
          "wait_group",
          [](Capture& c, std::int64_t group) { return patiently([&](double t) { return c.wait_group(group, t); }); }, "group"_a)
      .def("wait_captured", [](Capture& c) { return patiently([&](double t) { return c.wait_captured(t); }); })
      .def("wait_written", [](Capture& c) { return patiently([&](double t) { return c.wait_written(t); }); })
      .def("cancel", &Capture::cancel, nb::call_guard<nb::gil_scoped_release>())
      .def("rehash", &Capture::rehash, nb::call_guard<nb::gil_scoped_release>())
      .def_prop_ro("captured", &Capture::captured)
      .def_prop_ro("written", &Capture::written)
      .def_prop_ro("failed", &Capture::failed)
      .def_prop_ro("bytes", &Capture::bytes)
      .def_prop_ro("bytes_captured", &Capture::bytes_captured)
      .def_prop_ro("bytes_written", &Capture::bytes_written)
      .def_prop_ro("changed", &Capture::changed)
      .def_prop_ro("header_hash", &Capture::header_hash)
      .def_prop_ro("extents",
                   [](const Capture& c) {
                     std::vector<std::tuple<std::int64_t, std::int64_t, std::string>> all;
                     for (const Extent& e : c.extents()) all.emplace_back(e.begin, e.end, e.hash);
                     return all;
                   })
      .def_prop_ro("seconds",
                   [](const Capture& c) {
                     const Capture::Seconds s = c.seconds();
                     return std::map<std::string, double>{
                         {"capture", s.capture}, {"write", s.write}, {"fsync", s.fsync}, {"ring_full", s.ring_full}};
                   })
      .def_prop_ro("io", [](const Capture& c) { return name(c.io()); })
      .def_prop_ro("io_reason", &Capture::io_reason);
}

void register_engine(nb::module_& m) {
  nb::class_<PythonEngine>(m, "CheckpointEngine")
      .def(
          "__init__",
          [](PythonEngine* self, std::int64_t ring_bytes, std::int64_t slot_bytes, int writers, const std::string& io,
             const std::string& checksum) {
            const Engine::Options options{ring_bytes, slot_bytes, writers, io_mode_of(io), checksum_choice(checksum)};
            const nb::gil_scoped_release release;
            new (self) PythonEngine(options);
          },
          "ring_bytes"_a, "slot_bytes"_a = std::int64_t{8} << 20, "writers"_a = 1, "io"_a = "auto", "checksum"_a = "auto")
      .def(
          "begin",
          [](PythonEngine& e, const std::string& path, const nb::bytes& header, const std::vector<std::uintptr_t>& addresses,
             const std::vector<std::int64_t>& sizes, const std::vector<std::int64_t>& groups, const std::vector<int>& devices,
             const std::vector<std::int64_t>& eager, const std::map<int, std::uintptr_t>& producers) {
            std::vector<Span> spans = spans_of(addresses, sizes, groups);
            place_on_devices(spans, devices, eager);
            std::string text(header.c_str(), header.size());
            const nb::gil_scoped_release release;
            return e.begin(path, std::move(text), std::move(spans), streams_of(producers));
          },
          nb::keep_alive<0, 1>(), "path"_a, "header"_a, "addresses"_a, "sizes"_a, "groups"_a, "devices"_a = std::vector<int>{},
          "eager"_a = std::vector<std::int64_t>{}, "producers"_a = std::map<int, std::uintptr_t>{})
      .def_static(
          "probe",
          [](const std::string& directory, const std::string& io) {
            const IoMode best = io_mode_of(io);
            IoProbe probe;
            {
              const nb::gil_scoped_release release;
              PosixFileSystem fs;
              probe = probe_io(fs, directory, best);
            }
            nb::dict result;
            result["io"] = name(probe.mode);
            result["reasons"] = probe.reasons;
            result["checksum"] = name(best_checksum());
            return result;
          },
          "directory"_a, "io"_a = "auto")
      .def("close", &Engine::close, nb::call_guard<nb::gil_scoped_release>())
      .def_prop_ro("checksum", [](const PythonEngine& e) { return name(e.checksum()); })
      .def_prop_ro("io", [](const PythonEngine& e) { return name(e.io()); })
      .def_prop_ro("io_reason", &Engine::io_reason)
      .def_prop_ro("ring_bytes", &Engine::ring_bytes);
}

}  // namespace

void register_checkpoint(nb::module_& m) {
  register_capture(m);
  register_engine(m);
  m.def("cuda_absent_why", &device::cuda_absent_why);
  m.def(
      "probe_digests",
      [](const std::vector<std::uintptr_t>& addresses, const std::vector<std::int64_t>& sizes) {
        const std::vector<Span> spans = spans_of(addresses, sizes, {});
        const nb::gil_scoped_release release;
        return probe_digests(spans);
      },
      "addresses"_a, "sizes"_a);
  m.def(
      "hash_spans",
      [](const std::vector<std::uintptr_t>& addresses, const std::vector<std::int64_t>& sizes, const std::string& checksum) {
        const std::vector<Span> spans = spans_of(addresses, sizes, {});
        const Checksum kind = checksum_choice(checksum);
        const nb::gil_scoped_release release;
        std::vector<std::string> hashes;
        for (const Span& span : spans) hashes.push_back(hash(kind, span.data, static_cast<std::size_t>(span.bytes)));
        return hashes;
      },
      "addresses"_a, "sizes"_a, "checksum"_a = "auto");
}

}  // namespace hetsp::bindings
