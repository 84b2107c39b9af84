"""The native engine from Python: a file of a header and tensors, its waits, its errors, a fork."""

import errno
import gc
import os
import signal
import threading

import pytest
import torch

from hetsp_ext._native import core
from hetsp_ext.errors import CheckpointWriteError, InvalidArgument

MIB = 1 << 20


def engine(**options):
    return core.CheckpointEngine(**{"ring_bytes": 4 * MIB, "slot_bytes": MIB, **options})


def begin(engine, path, tensors, header=b"header", groups=None):
    sizes = [t.numel() * t.element_size() for t in tensors]
    addresses = [t.data_ptr() for t in tensors]
    return engine.begin(str(path), header, addresses, sizes, groups or [0] * len(tensors))


def content(tensors, header=b"header"):
    return header + b"".join(t.contiguous().view(torch.uint8).numpy().tobytes() for t in tensors)


@pytest.mark.parametrize("io", ["auto", "io_uring", "direct", "buffered"])
@pytest.mark.parametrize("checksum", ["auto", "crc32c"])
def test_a_save_is_the_bytes_of_its_tensors(tmp_path, io, checksum):
    tensors = [torch.randn(1000, 999), torch.empty(0), torch.arange(7, dtype=torch.int8), torch.randn(3 * MIB // 4)]
    e = engine(io=io, checksum=checksum)
    capture = begin(e, tmp_path / "a", tensors, groups=[0, 0, 1, 1])
    assert capture.wait_group(0) >= 0.0
    assert capture.wait_group(12345) == 0.0
    assert capture.wait_captured() >= 0.0
    assert capture.wait_written() >= 0.0
    assert (capture.captured, capture.written, capture.failed) == (True, True, False)
    data = content(tensors)
    assert (tmp_path / "a").read_bytes() == data
    assert capture.bytes == capture.bytes_captured == capture.bytes_written == len(data)
    assert capture.changed == []
    assert capture.rehash() == []
    assert set(capture.seconds) == {"capture", "write", "fsync", "ring_full"}
    assert capture.io in ("io_uring", "direct", "buffered")
    assert io != "buffered" or capture.io == "buffered"
    if capture.io != io and io != "auto":
        assert capture.io_reason  # a fallback says why
    begins = [b for b, _, _ in capture.extents]
    assert (begins[0], capture.extents[-1][1]) == (len(b"header"), len(data))
    for b, end, digest in [(0, len(b"header"), capture.header_hash), *capture.extents]:
        whole = torch.frombuffer(bytearray(data[b:end]), dtype=torch.uint8)
        assert [digest] == core.hash_spans([whole.data_ptr()], [end - b], e.checksum)
    e.close()
    with pytest.raises(InvalidArgument, match=r"after close\(\)"):
        begin(e, tmp_path / "b", tensors)


def test_what_changed_is_named(tmp_path):
    busy, tensors = torch.zeros(8 * MIB), [torch.zeros(100), torch.zeros(100)]
    e = engine()
    first = begin(e, tmp_path / "busy", [busy])  # eight rings full: the copy of the next one comes later
    capture = begin(e, tmp_path / "a", tensors)
    tensors[1].fill_(1.0)
    capture.wait_captured()
    assert capture.changed == [1]
    assert first.wait_captured() == 0.0
    assert first.changed == []


def test_errors_carry_errno_and_path(tmp_path):
    path, tensors = tmp_path / "none" / "a", [torch.zeros(10)]
    capture = begin(engine(), path, tensors)
    with pytest.raises(CheckpointWriteError, match="ENOENT") as raised:
        capture.wait_written()
    assert raised.value.errno == errno.ENOENT
    assert raised.value.filename == str(path)
    assert isinstance(raised.value, OSError)
    assert (capture.captured, capture.written, capture.failed) == (True, False, True)
    with pytest.raises(InvalidArgument, match="extents of"):
        capture.extents  # noqa: B018


def test_a_cancelled_save_says_so(tmp_path):
    busy, tensors = torch.zeros(8 * MIB), [torch.zeros(10)]
    e = engine()
    first = begin(e, tmp_path / "busy", [busy])
    capture = begin(e, tmp_path / "a", tensors)
    capture.cancel()
    assert capture.wait_captured() == 0.0  # at once, though another is being copied
    with pytest.raises(CheckpointWriteError, match="ECANCELED"):
        capture.wait_written()
    assert not (tmp_path / "a").exists()
    first.wait_written()


def test_a_probe_names_the_mode_and_what_is_missing(tmp_path):
    found = core.CheckpointEngine.probe(str(tmp_path))
    assert found["io"] in ("io_uring", "direct", "buffered")
    assert bool(found["reasons"]) == (found["io"] != "io_uring")
    assert found["checksum"] == engine().checksum
    assert core.CheckpointEngine.probe(str(tmp_path), "buffered") == {**found, "io": "buffered", "reasons": []}
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(CheckpointWriteError, match="ENOENT"):
        core.CheckpointEngine.probe(str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ring_bytes": 0}, "bytes is 0"),
        ({"slot_bytes": 5}, "slot_bytes is 5"),
        ({"writers": 0}, "writers is 0"),
        ({"io": "fast"}, '"fast", must be one of auto'),
        ({"checksum": "md5"}, '"md5", must be one of'),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(InvalidArgument, match=message):
        engine(**options)


def test_bad_spans_are_named(tmp_path):
    e = engine()
    with pytest.raises(InvalidArgument, match="1 addresses, 2 sizes and 1 groups"):
        e.begin(str(tmp_path / "a"), b"h", [1], [2, 3], [0])
    with pytest.raises(InvalidArgument, match="span 0 has 4 bytes at address 0"):
        e.begin(str(tmp_path / "a"), b"h", [0], [4], [0])
    with pytest.raises(InvalidArgument, match="header is empty"):
        e.begin(str(tmp_path / "a"), b"", [], [], [])


def test_digests_agree_where_content_does():
    a, b = torch.arange(5000.0), torch.arange(5000.0)
    digest = [core.probe_digests([t.data_ptr()], [t.numel() * 4])[0] for t in (a, b, a + 1)]
    assert digest[0] == digest[1] != digest[2]


def test_a_capture_keeps_its_engine(tmp_path):
    tensors = [torch.randn(MIB)]
    capture = begin(engine(), tmp_path / "a", tensors)
    gc.collect()
    capture.wait_written()
    assert (tmp_path / "a").read_bytes() == content(tensors)


def test_dropped_with_a_save_in_flight(tmp_path):
    tensors = [torch.randn(MIB)]
    e = engine()
    capture = begin(e, tmp_path / "a", tensors)
    capture.wait_captured()
    del capture, e
    gc.collect()
    assert (tmp_path / "a").read_bytes() == content(tensors)  # what was copied is written first


@pytest.fixture
def interruptible():
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it, and so would we
    yield
    signal.signal(signal.SIGINT, previous)


def test_control_c_ends_a_wait_not_the_save(tmp_path, interruptible):
    tensors = [torch.randn(32 * MIB)]
    capture = begin(engine(), tmp_path / "a", tensors)
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - the signal may come before, in or after the wait
        threading.Timer(0.0, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        capture.wait_written()
        threading.Event().wait(60)
    capture.wait_written()
    assert (tmp_path / "a").stat().st_size == capture.bytes


def test_a_forked_child_lets_go(tmp_path):
    tensors = [torch.ones(MIB)]
    e = engine()
    capture = begin(e, tmp_path / "a", tensors)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            capture.wait_written()
        except InvalidArgument:
            code = 0
        del capture, e
        gc.collect()
        os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    capture.wait_written()
    assert (tmp_path / "a").stat().st_size == capture.bytes
