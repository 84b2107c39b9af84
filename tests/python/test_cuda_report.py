"""The compiler's report on CUDA kernels, read without a compiler: spills, serialised wgmma, instructions, time."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT
from tools import cuda_report

GOOD = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_ZN5hetsp7forwardE' for 'sm_90a'
ptxas info    : Function properties for _ZN5hetsp7forwardE
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 168 registers, used 5 barriers, 1024 bytes smem
ptxas info    : Compiling entry function '_ZN5hetsp5deltaE' for 'sm_90a'
    16 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers
"""
SPILLS = GOOD.replace("0 bytes stack frame, 0 bytes spill stores, 0", "8 bytes stack frame, 4 bytes spill stores, 12", 1)
REMARK = "ptxas info    : ({}) Potential Performance Loss: wgmma.mma_async instructions are serialized due to ...\n"
FOLDER = "csrc/hetsp/attention/CMakeFiles/hetsp_attention.dir/cuda"


def tree(root: Path, reports: dict[str, str]) -> Path:
    for name, text in reports.items():
        path = root / FOLDER / f"{name}.o.ptxas"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.with_suffix("").write_bytes(b"")
    return root


def test_a_report_is_read() -> None:
    first, second = cuda_report.read_report(GOOD).kernels
    assert (first.name, first.target, first.registers, first.stack, first.spilled) == (
        "_ZN5hetsp7forwardE",
        "sm_90a",
        168,
        0,
        0,
    )
    assert (second.registers, second.stack, second.spilled) == (40, 16, 0)
    assert cuda_report.problems("forward.cu", cuda_report.read_report(GOOD)) == []


def test_what_is_amiss_is_named() -> None:
    (spills,) = cuda_report.problems("forward.cu", cuda_report.read_report(SPILLS))
    assert spills == "forward.cu: _ZN5hetsp7forwardE for sm_90a spills 16 bytes"
    for code in ("C7510", "C7511", "C7515", "C7599"):
        (remark,) = cuda_report.problems("forward.cu", cuda_report.read_report(REMARK.format(code) + GOOD))
        assert remark.startswith(f"forward.cu: wgmma is serialised: ptxas info    : ({code})")
    assert cuda_report.problems("forward.cu", cuda_report.read_report(REMARK.format("C7519") + GOOD)) == []
    assert cuda_report.problems("forward.cu", cuda_report.read_report("")) == ["forward.cu: no kernel in its report"]
    assert cuda_report.problems("tensor_map.cu", cuda_report.read_report(""), has_kernels=False) == []


def test_a_tree_is_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_report, "disassembler", lambda: None)
    took = "took 0m10.500000s 0m0.500000s\n"
    good = tree(tmp_path / "good", {"forward.cu": GOOD + took, "hopper/forward.cu": GOOD + took.replace("0m10", "1m10")})
    cuda_report.main([str(good)])
    said = capsys.readouterr().out
    assert "hetsp/attention/cuda/hopper/forward.cu" in said
    assert "2 kernels, at most 168 registers, stack  16 bytes" in said
    assert "2 CUDA objects, 82 CPU-seconds" in said
    assert "machine code is not looked at" in said
    with pytest.raises(SystemExit, match="nvcc took 82 CPU-seconds, 30 are allowed"):
        cuda_report.main([str(good), "--most-seconds", "30"])
    with pytest.raises(SystemExit, match=r"hopper/forward\.cu: _ZN5hetsp7forwardE for sm_90a spills 16 bytes"):
        cuda_report.main([str(tree(tmp_path / "bad", {"forward.cu": GOOD, "hopper/forward.cu": SPILLS}))])
    with pytest.raises(SystemExit, match="not a build tree with CUDA kernels"):
        cuda_report.main([str(tmp_path / "nothing")])


def test_headers_are_read_once_each(tmp_path: Path) -> None:
    (tmp_path / "a.cu").write_text('#include "b.cuh"\n#include "c.cuh"\n')
    (tmp_path / "b.cuh").write_text('#include "c.cuh"\n')
    (tmp_path / "c.cuh").write_text('#include "a.cu"\n#include <vector>\n__global__\n')
    assert cuda_report.with_headers(tmp_path / "a.cu", tmp_path, set()).count("__global__") == 1


def test_tensor_cores_are_looked_for_where_they_belong(tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "cuobjdump").write_text('#!/bin/sh\ncat "$2"\n')
    (tools / "cuobjdump").chmod(0o755)
    full, empty = tmp_path / "full.o", tmp_path / "empty.o"
    full.write_text("HGMMA.64x64x16.F32 R24\nHGMMA.64x64x16.F32 R56\n")
    empty.write_text("EXIT\n")

    def look(source: str, what: Path) -> tuple[str, list[str]]:
        return cuda_report.missing_instructions(tools, source, what)

    assert look("cuda/hopper/forward.cu", full) == ("2 HGMMA", [])
    assert look("cuda/hopper/forward.cu", empty) == ("0 HGMMA", ["cuda/hopper/forward.cu: no HGMMA in its machine code"])
    assert look("cuda/hopper/backward_64.cu", full) == ("2 HGMMA", [])
    assert look("cuda/mma/forward.cu", full)[1] == ["cuda/mma/forward.cu: no HMMA in its machine code"]
    assert look("cuda/hopper/tensor_map.cu", empty) == ("", [])
    assert look("cuda/merge.cu", empty) == ("", [])


def test_the_launcher_keeps_the_report_and_shows_the_warnings(tmp_path: Path) -> None:
    compiler, object_file = tmp_path / "nvcc", tmp_path / "a.cu.o"
    compiler.write_text(f"#!/bin/sh\ncat >&2 <<'END'\n{GOOD}a.cu(3): warning: unused\nEND\necho made > \"$2\"\nexit $STATUS\n")
    compiler.chmod(0o755)
    launcher = str(ROOT / "cmake/ptxas_report.sh")
    for status in ("0", "3"):
        command = [launcher, str(compiler), "-o", str(object_file)]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "STATUS": status}, timeout=60)
        assert done.returncode == int(status)
        assert done.stderr == "a.cu(3): warning: unused\n"
        report = Path(f"{object_file}.ptxas").read_text()
        assert report.startswith(GOOD)
        assert cuda_report.TOOK.match(report.splitlines()[-1])
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.cu.o", "a.cu.o.ptxas", "nvcc"]
        assert object_file.read_text() == "made\n"
    assert subprocess.run([launcher, "true"], timeout=60).returncode == 0
