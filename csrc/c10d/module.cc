// hetsp_ext._c10d: the backend `hetsp`, built for one torch. hetsp_ext.distributed makes the contexts and calls create().
#include <pybind11/chrono.h>
#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>
#include <torch/version.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "c10d/backend.h"
#include "c10d/gloo_lane.h"
#include "c10d/nccl_library.h"
#include "c10d/python_dialler.h"
#include "c10d/shared_node.h"
#include "c10d/translate.h"
#include "hetsp/base/error.h"
#include "hetsp/device/device.h"
#include "hetsp/staging/device_runtime.h"

namespace py = pybind11;

namespace hetsp::routed {

namespace {

constexpr std::size_t lane_chunk = std::size_t{4} << 20;

using Context = c10::intrusive_ptr<::c10d::Backend>;
// This rank's segment; per neighbour its rank, its segment, and what hangs up when it ends. Descriptors: the first two are
// closed by the caller, the others are taken over.
using SharedFiles = std::tuple<int, std::vector<std::tuple<int, int, std::vector<int>>>>;
using Rails = std::vector<std::tuple<int, int, int, std::optional<Context>>>;  // peer, rail, generation, context

comm::Topology topology_of(const py::list& nodes) {
  std::vector<comm::Node> all;
  for (const py::handle handle : nodes) {
    const auto node = handle.cast<py::dict>();
    comm::Node& out = all.emplace_back();
    out.ranks = node["ranks"].cast<std::vector<int>>();
    out.control = node["control"].cast<std::string>();
    for (const py::handle nic : node["nics"]) {
      out.nics.push_back({nic["name"].cast<std::string>(), nic["address"].cast<std::string>(), nic["rate"].cast<double>()});
    }
  }
  return comm::Topology(std::move(all));
}

std::vector<LinkEnd> links_of(const comm::Topology& topology, int rank, const std::optional<Context>& local,
                              const std::optional<Context>& control, const Rails& rails, bool shared) {
  std::vector<LinkEnd> links;
  const std::vector<int>& neighbours = topology.node(topology.node_of(rank)).ranks;
  require(topology.ranks() == 1 || control, "a group of ", topology.ranks(), " ranks needs a control context");
  require(neighbours.size() == 1 || shared || local, "rank ", rank,
          " shares its node with others, which needs a local context");
  for (int peer = 0; peer < topology.ranks(); ++peer) {
    if (peer != rank && !(shared && topology.same_node(rank, peer)))
      links.push_back({{comm::Stage::control, peer, 0}, gloo_lane(*control, peer), 0});
  }
  for (std::size_t i = 0; i < neighbours.size(); ++i) {
    const int peer = neighbours[i];
    if (peer != rank && !shared) links.push_back({{comm::Stage::local, peer, 0}, gloo_lane(*local, static_cast<int>(i)), 0});
  }
  for (const auto& [peer, rail, generation, context] : rails) {
    LinkEnd& link = links.emplace_back();
    link.link = {comm::Stage::rail, peer, rail};
    link.generation = static_cast<std::uint16_t>(generation);
    if (context) link.lane = gloo_lane(*context, peer > rank ? 1 : 0);
  }
  return links;
}

std::optional<SharedNode> shared_of(const comm::Topology& topology, int rank, const comm::EngineOptions& options,
                                    const std::optional<SharedFiles>& files) {
  if (!files) return {};
  const std::vector<int>& ranks = topology.node(topology.node_of(rank)).ranks;
  const auto place_of = [&](int of) {
    const auto found = std::find(ranks.begin(), ranks.end(), of);
    require(found != ranks.end(), "rank ", of, " is not of the node of rank ", rank);
    return static_cast<int>(found - ranks.begin());
  };
  SharedNode node;
  node.shape = SharedShape::of(options, static_cast<int>(ranks.size()));
  node.rank = rank;
  node.place = place_of(rank);
  node.memory = map_shared(std::get<0>(*files), node.shape.bytes());
  for (const auto& [peer, segment, watched] : std::get<1>(*files)) {
    node.neighbours.push_back({peer, place_of(peer), map_shared(segment, node.shape.bytes()), watched});
  }
  require(node.neighbours.size() + 1 == ranks.size(), "memory is shared with ", node.neighbours.size(), " of ",
          ranks.size() - 1, " neighbours");
  return node;
}

comm::EngineOptions options_of(std::uint64_t job, std::size_t direct_bytes, std::size_t chunk_bytes, bool on_device) {
  comm::EngineOptions options;
  options.job = job;
  if (direct_bytes > 0) options.direct_bytes = direct_bytes;
  if (chunk_bytes > 0) options.chunk_bytes = chunk_bytes;
  if (on_device) {
    // A chunk costs some events that a thread of the host waits for: long ones hide that, and more must be under way.
    if (chunk_bytes == 0) options.chunk_bytes = lane_chunk;
    options.message_window = std::max(options.message_window, 16 * options.chunk_bytes);
  }
  // What is not spread gains nothing from asking first.
  options.rail_eager_bytes = std::min({options.chunk_bytes, options.direct_bytes - 1, options.eager_window / 4});
  return options;
}

py::dict as_dict(const comm::Statistics& statistics) {
  py::list rails;
  for (const comm::RailStatistics& rail : statistics.rails) {
    py::dict out;
    out["node"] = rail.node;
    out["rail"] = rail.rail;
    out["up"] = rail.up;
    out["generation"] = rail.generation;
    out["bytes_sent"] = rail.bytes_sent;
    out["bytes_received"] = rail.bytes_received;
    out["frames_resent"] = rail.frames_resent;
    out["times_down"] = rail.times_down;
    out["silence_noticed"] = rail.silence_noticed;
    out["ack_seconds"] = rail.ack_seconds;
    out["rate"] = rail.rate;
    rails.append(out);
  }
  py::dict out;
  out["rails"] = rails;
  out["messages_sent"] = statistics.messages_sent;
  out["messages_received"] = statistics.messages_received;
  out["eager"] = statistics.eager;
  out["direct"] = statistics.direct;
  out["spread"] = statistics.spread;
  out["local"] = statistics.local;
  out["chunks_sent"] = statistics.chunks_sent;
  out["chunks_resent"] = statistics.chunks_resent;
  out["chunks_relayed"] = statistics.chunks_relayed;
  out["duplicates_dropped"] = statistics.duplicates_dropped;
  out["foreign_dropped"] = statistics.foreign_dropped;
  return out;
}

// Groups that were never destroyed end before Python does: their threads may want its lock.
class Living {
 public:
  void add(const c10::intrusive_ptr<Backend>& backend) {
    std::erase_if(backends_, [](const auto& weak) { return weak.expired(); });
    backends_.emplace_back(backend);
  }
  std::string report() const {
    std::vector<c10::intrusive_ptr<Backend>> all;
    for (const auto& weak : backends_)
      if (auto backend = weak.lock()) all.push_back(std::move(backend));
    std::string text;
    const py::gil_scoped_release waiting;
    for (const auto& backend : all) text += backend->report();
    return text;
  }
  void shut_down() {
    for (const auto& weak : std::exchange(backends_, {})) {
      if (const auto backend = weak.lock()) backend->shutdown();
    }
  }

 private:
  std::vector<c10::weak_intrusive_ptr<Backend>> backends_;  // guarded by Python's lock
};

Living& living() {
  static Living all;
  return all;
}

c10::intrusive_ptr<Backend> create(int rank, int size, std::chrono::milliseconds timeout, std::uint64_t job,
                                   const py::list& nodes, const std::optional<Context>& local,
                                   const std::optional<Context>& control, const Rails& rails, py::object connect,
                                   const std::optional<SharedFiles>& shared, std::size_t direct_bytes, std::size_t chunk_bytes,
                                   int device, const std::string& nccl_asked, const std::string& nccl_bundled) {
  comm::Topology topology = topology_of(nodes);
  require(topology.ranks() == size, "the topology has ", topology.ranks(), " ranks, the group ", size);
  require(rank >= 0 && rank < size, "rank ", rank, " is not in a group of ", size);
  const comm::EngineOptions options = options_of(job, direct_bytes, chunk_bytes, device >= 0);
  std::optional<DeviceSetup> setup;
  if (device >= 0) setup = DeviceSetup{&staging::cuda_runtime(), device, NcclLibrary::find(nccl_asked, nccl_bundled)};
  auto links = links_of(topology, rank, local, control, rails, shared.has_value());
  auto node = shared_of(topology, rank, options, shared);
  auto backend = c10::make_intrusive<Backend>(rank, std::move(topology), options, timeout, std::move(links),
                                              python_dialler(std::move(connect), rank), setup, std::move(node));
  living().add(backend);
  return backend;
}

// Where lanes for the memory of GPUs cannot be had: why. Else which NCCL carries them.
py::dict find_nccl(const std::string& asked, const std::string& bundled) {
  py::dict out;
  std::string why = device::cuda_absent_why();
  try {
    const auto library = NcclLibrary::find(asked, bundled);
    out["version"] = library->version();
    out["path"] = library->path();
  } catch (const NcclAbsent& absent) {
    why += (why.empty() ? "" : "; ") + std::string(absent.what());
  }
  out["why"] = why;
  return out;
}

py::dict as_dict(const DeviceStatistics& statistics) {
  py::dict out;
  out["chunks_sent"] = statistics.chunks_sent;
  out["chunks_received"] = statistics.chunks_received;
  out["bytes_sent"] = statistics.bytes_sent;
  out["bytes_received"] = statistics.bytes_received;
  out["lanes_failed"] = statistics.lanes_failed;
  return out;
}

}  // namespace

}  // namespace hetsp::routed

PYBIND11_MODULE(_c10d, m) {
  using hetsp::routed::Backend;
  m.attr("torch_version") = TORCH_VERSION;
  py::module_::import("torch.distributed");  // registers the base class
  hetsp::routed::register_exceptions();
  py::class_<Backend, ::c10d::Backend, c10::intrusive_ptr<Backend>>(m, "Backend")
      .def_property_readonly("job", &Backend::job)
      .def("statistics",
           [](Backend& backend) {
             hetsp::comm::Statistics statistics;
             {
               const py::gil_scoped_release waiting;
               statistics = backend.statistics();
             }
             return hetsp::routed::as_dict(statistics);
           })
      .def("lanes_settled", &Backend::lanes_settled, py::call_guard<py::gil_scoped_release>())
      .def("use_lanes", &Backend::use_lanes, py::arg("collectives").none(true))
      .def("turn_lanes_off", &Backend::turn_lanes_off)
      .def("lane_statistics", [](Backend& backend) {
        hetsp::routed::DeviceStatistics statistics;
        {
          const py::gil_scoped_release waiting;
          statistics = backend.lane_statistics();
        }
        return hetsp::routed::as_dict(statistics);
      });
  m.def("report", [] { return hetsp::routed::living().report(); });
  m.def("nccl", &hetsp::routed::find_nccl, py::arg("asked"), py::arg("bundled"));
  // torch binds no abort() for Works; ours come back to Python as this class.
  py::class_<hetsp::routed::Work, ::c10d::Work, c10::intrusive_ptr<hetsp::routed::Work>>(m, "Work").def(
      "abort", &hetsp::routed::Work::abort, py::call_guard<py::gil_scoped_release>());
  m.def("create", &hetsp::routed::create, py::kw_only(), py::arg("rank"), py::arg("size"), py::arg("timeout"), py::arg("job"),
        py::arg("nodes"), py::arg("local"), py::arg("control"), py::arg("rails"), py::arg("connect"), py::arg("shared"),
        py::arg("direct_bytes") = 0, py::arg("chunk_bytes") = 0, py::arg("device") = -1, py::arg("nccl_asked") = "",
        py::arg("nccl_bundled") = "");
  m.def("shared_bytes", [](std::size_t chunk_bytes, int ranks, bool on_device) {
    return hetsp::routed::SharedShape::of(hetsp::routed::options_of(0, 0, chunk_bytes, on_device), ranks).bytes();
  });
  py::module_::import("atexit").attr("register")(py::cpp_function([] { hetsp::routed::living().shut_down(); }));
}
