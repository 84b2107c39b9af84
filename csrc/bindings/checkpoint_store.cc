// hetsp_ext._core: a directory of checkpoints and its commit protocol, sealed texts, verified reads. All calls release the GIL:
// they wait for disks.
#include <nanobind/stl/function.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings/register.h"
#include "hetsp/base/error.h"
#include "hetsp/checkpoint/checksum.h"
#include "hetsp/checkpoint/directory.h"
#include "hetsp/checkpoint/file_system.h"
#include "hetsp/checkpoint/seal.h"
#include "hetsp/checkpoint/verified_read.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace hetsp::bindings {

namespace {

using namespace checkpoint;
using Released = nb::call_guard<nb::gil_scoped_release>;

FileSystem& disk() {
  static PosixFileSystem files;
  return files;
}

Checksum checksum_from(const std::string& name) { return name == "auto" ? best_checksum() : checksum_of(name); }

std::string_view view(const nb::bytes& bytes) { return {bytes.c_str(), bytes.size()}; }
nb::bytes to_bytes(const std::string& text) { return nb::bytes(text.data(), text.size()); }

class PythonDirectory {
 public:
  explicit PythonDirectory(const std::string& path) : directory(disk(), path) {}
  Directory directory;
};

using ExtentTuple = std::tuple<std::int64_t, std::int64_t, std::string>;  // begin, end, hash
using PieceTuple = std::tuple<std::int32_t, std::int64_t, std::int64_t, std::uintptr_t>;  // file, offset, bytes, address
using FaultTuple = std::tuple<std::int32_t, std::int64_t, std::int64_t, std::string>;  // file, begin, end, what

FileSpec spec_of(std::string path, std::int64_t size, std::string header_hash, std::vector<ExtentTuple> extents) {
  FileSpec spec{std::move(path), size, std::move(header_hash), {}};
  spec.extents.reserve(extents.size());
  for (auto& [begin, end, hash] : extents) spec.extents.push_back({begin, end, std::move(hash)});
  return spec;
}

std::vector<FaultTuple> tuples(const std::vector<Fault>& faults) {
  std::vector<FaultTuple> list;
  for (const Fault& fault : faults) list.emplace_back(fault.file, fault.begin, fault.end, fault.what);
  return list;
}

void register_verified_read(nb::module_& m) {
  nb::class_<FileSpec>(m, "FileSpec",
                       "A file as its manifest describes it: a header up to the first extent, then extents\n"
                       "(begin, end, hash) without a gap to the end. An empty header_hash: the header is not looked at.")
      .def(
          "__init__",
          [](FileSpec* self, std::string path, std::int64_t size, std::string header_hash, std::vector<ExtentTuple> extents) {
            new (self) FileSpec(spec_of(std::move(path), size, std::move(header_hash), std::move(extents)));
          },
          "path"_a, "size"_a, "header_hash"_a, "extents"_a)
      .def_ro("path", &FileSpec::path)
      .def_ro("size", &FileSpec::size)
      .def_ro("header_hash", &FileSpec::header_hash)
      .def_prop_ro("extents", [](const FileSpec& spec) {
        std::vector<ExtentTuple> list;
        for (const Extent& extent : spec.extents) list.emplace_back(extent.begin, extent.end, extent.hash);
        return list;
      });
  nb::class_<Restoration>(m, "Restoration", "What verified_read did.")
      .def_prop_ro(
          "faults", [](const Restoration& r) { return tuples(r.faults); },
          "[(index of the file, begin, end, what), ...]; empty: every piece has arrived")
      .def("finish", &Restoration::finish, Released(), "copies what was held back; what is no longer right is added to faults")
      .def("rollback", &Restoration::rollback, Released(), "puts the old bytes back; the destinations must still live")
      .def("forget", &Restoration::forget, Released(), "frees the old bytes")
      .def_ro("bytes", &Restoration::bytes, "of the pieces")
      .def_ro("kept", &Restoration::kept, "old bytes kept")
      .def_ro("seconds", &Restoration::seconds)
      .def_ro("undo", &Restoration::undo,
              "how most of it was done: \"kept\" (old bytes), \"checked first\" (and read again) or \"none\"")
      .def_ro("refusal", &Restoration::refusal, "why files were read through the page cache; empty where they were not")
      .def("__repr__", [](const Restoration& r) {
        return concat("<hetsp_ext.Restoration of ", r.bytes, " bytes in ", r.seconds, " s: ", r.faults.size(), " faults, undo ",
                      r.undo, ">");
      });
  m.def(
      "verified_read",
      [](const std::vector<FileSpec>& files, const std::vector<PieceTuple>& pieces, std::int64_t ring_bytes,
         const std::string& checksum, bool undo, bool hold, const std::optional<std::int64_t>& free_memory,
         const std::optional<std::int64_t>& window) {
        const nb::gil_scoped_release release;
        std::vector<Piece> list;
        list.reserve(pieces.size());
        for (const auto& [file, offset, bytes, address] : pieces)
          list.push_back({file, offset, bytes,
                          reinterpret_cast<std::byte*>(address)});  // NOLINT(performance-no-int-to-ptr): torch's data_ptr()
        ReadOptions options;
        options.ring_bytes = ring_bytes;
        options.checksum = checksum_from(checksum);
        options.undo = undo;
        options.hold = hold;
        options.free_memory = free_memory;
        options.window = window;
        return verified_read(disk(), files, list, options);
      },
      "files"_a, "pieces"_a, "ring_bytes"_a = ReadOptions().ring_bytes, "checksum"_a = "auto", "undo"_a = false,
      "hold"_a = false, "free_memory"_a = nb::none(), "window"_a = nb::none(),
      "Reads pieces (file index, file offset, bytes, destination address) of the files; every touched extent is verified\n"
      "before a byte of it arrives. With undo, rollback() puts the old bytes back: they are kept or, where they would take\n"
      "more than free_memory (None: what the system has) or keeping proves slower, everything is checked before anything is\n"
      "copied. With hold that copy is left to finish(), so that rollback() is possible although there are no faults here.\n"
      "window: reads of 8 MiB in each trial of what is faster (None: by the number of all).");
  m.def(
      "verify_file",
      [](std::string path, std::int64_t size, std::string header_hash, std::vector<ExtentTuple> extents,
         const std::string& checksum, std::int64_t ring_bytes) {
        const nb::gil_scoped_release release;
        const FileSpec spec = spec_of(std::move(path), size, std::move(header_hash), std::move(extents));
        return tuples(verify_files(disk(), {spec}, {.ring_bytes = ring_bytes, .checksum = checksum_from(checksum)}));
      },
      "path"_a, "size"_a, "header_hash"_a, "extents"_a, "checksum"_a = "auto", "ring_bytes"_a = ReadOptions().ring_bytes,
      "Faults of a whole file, as in Restoration.faults.");
  m.def(
      "verify_files",
      [](const std::vector<FileSpec>& files, const std::string& checksum, std::int64_t ring_bytes) {
        const nb::gil_scoped_release release;
        return tuples(verify_files(disk(), files, {.ring_bytes = ring_bytes, .checksum = checksum_from(checksum)}));
      },
      "files"_a, "checksum"_a = "auto", "ring_bytes"_a = ReadOptions().ring_bytes,
      "Faults of whole files, as in Restoration.faults.");
}

}  // namespace

void register_checkpoint_store(nb::module_& m) {
  register_verified_read(m);
  nb::class_<PythonDirectory>(
      m, "CheckpointDirectory",
      "A directory of checkpoints; made with its parents. publish, prune and clean take the lock for their own time\n"
      "where lock() has not, and raise CheckpointBusy where another process holds it.")
      .def(nb::init<const std::string&>(), "path"_a, Released())
      .def_prop_ro("path", [](const PythonDirectory& d) { return d.directory.path(); })
      .def(
          "lock", [](PythonDirectory& d, bool wait) { return d.directory.lock(wait); }, "wait"_a = false, Released(),
          "False where another process holds the directory")
      .def(
          "unlock", [](PythonDirectory& d) { d.directory.unlock(); }, Released())
      .def_prop_ro("locked", [](const PythonDirectory& d) { return d.directory.locked(); })
      .def(
          "begin", [](PythonDirectory& d, const std::string& uid) { return d.directory.begin(uid); }, "uid"_a, Released(),
          "path of .part-<uid>, made where it is not there")
      .def(
          "write",
          [](PythonDirectory& d, const std::string& uid, const std::string& name, const nb::bytes& data) {
            const std::string_view bytes = view(data);
            const nb::gil_scoped_release release;
            d.directory.write(uid, name, bytes);
          },
          "uid"_a, "name"_a, "data"_a, "a small file in .part-<uid>, synced; it appears whole, and once")
      .def(
          "publish",
          [](PythonDirectory& d, const std::string& uid, const std::string& name, const nb::bytes& manifest,
             const nb::object& on_phase, const std::string& checksum, bool replace, bool latest,
             bool lock) -> std::optional<std::string> {
            const PublishOptions options{checksum_from(checksum), replace, latest, lock};
            Directory::OnPhase callback;
            if (!on_phase.is_none())
              callback = [&](const char* phase) {
                const nb::gil_scoped_acquire acquire;
                on_phase(phase);
              };
            const std::string_view text = view(manifest);
            const nb::gil_scoped_release release;
            std::string behind = d.directory.publish(uid, name, text, options, callback);
            if (behind.empty()) return std::nullopt;
            return behind;
          },
          "uid"_a, "name"_a, "manifest"_a, "on_phase"_a = nb::none(), "checksum"_a = "auto", "replace"_a = false,
          "latest"_a = true, "lock"_a = true,
          "Seals the manifest and commits .part-<uid> as `name`; vote-* files are removed first. on_phase is called with\n"
          "\"manifest\", \"synced\", \"renamed\", \"committed\", \"latest\". An exception before \"committed\" means that\n"
          "nothing is committed; afterwards none comes: why `latest` stayed behind is returned, None where it did not.\n"
          "replace=True exchanges a committed checkpoint of that name. lock=False: the caller keeps other writers of this\n"
          "name away by means of its own.")
      .def(
          "discard", [](PythonDirectory& d, const std::string& uid) { d.directory.discard(uid); }, "uid"_a, Released(),
          "removes .part-<uid>")
      .def(
          "prune", [](PythonDirectory& d, const std::vector<std::string>& names) { return d.directory.prune(names); },
          "names"_a, Released(), "removes committed checkpoints and returns which; never what `latest` names or published last")
      .def(
          "clean", [](PythonDirectory& d) { return d.directory.clean(); }, Released(),
          "removes what died in progress and returns the names")
      .def(
          "names", [](const PythonDirectory& d) { return d.directory.names(); }, Released(), "step-*: committed, sorted")
      .def(
          "latest", [](const PythonDirectory& d) { return d.directory.latest(); }, Released(),
          "the committed name that the hint gives, or None")
      .def(
          "find", [](const PythonDirectory& d, const std::string& name) { return d.directory.find(name); }, "name"_a,
          Released(), "path of a committed checkpoint, also where the crash of a replacing save left it as .old-<name>")
      .def("__repr__", [](const PythonDirectory& d) {
        return "<hetsp_ext.CheckpointDirectory " + d.directory.path() + (d.directory.locked() ? ", locked>" : ">");
      });

  m.def(
      "seal",
      [](const nb::bytes& text, const std::string& checksum) { return to_bytes(seal(view(text), checksum_from(checksum))); },
      "text"_a, "checksum"_a = "auto", "the text with a last line that holds the checksum of all before it");
  m.def(
      "read_sealed",
      [](const std::string& path, const std::optional<std::string>& checksum) {
        std::optional<Checksum> expected;
        if (checksum) expected = checksum_from(*checksum);
        std::string text;
        {
          const nb::gil_scoped_release release;
          text = read_sealed(disk(), path, expected);
        }
        return to_bytes(text);
      },
      "path"_a, "checksum"_a = nb::none(),
      "The text of a sealed file. Raises CheckpointCorrupt with the path and what is wrong, an OSError where it cannot be "
      "read.");
}

}  // namespace hetsp::bindings
