"""Words that have no place in native code: torch and Python in the core, the environment, exits and prints anywhere."""

import re

import pytest

from tests.architecture.tree import files, line_of, read, without_comments

# Pattern, where it is forbidden, why.
RULES = [
    (
        r"\b(torch\w*|ATen|at::|c10\w*|nanobind|pybind11|Py[A-Z]\w+|Py_\w+)",
        "csrc/hetsp/",
        "the core knows neither torch nor Python",
    ),
    (r"\b(secure_)?getenv\b|\benviron\b", "csrc/", "configuration is read once, in Python, and passed down"),
    # An operation of torch.distributed has a method abort(), which is declared `void abort() override` and called on an object.
    (
        r"(?<!void )(?<!void Work::)(?<!void Backend::)(?<!->)(?<!\.)\b(std::)?(exit|_Exit|quick_exit|abort|terminate)\s*\(",
        "csrc/",
        "a library never ends its process",
    ),
    (r"\bstd::(cout|cerr|clog)\b|(?<![\w:])(std::)?(f?printf|puts)\s*\(", "csrc/", "a library never prints"),
    (r"\bassert\s*\(", "csrc/hetsp/", "NDEBUG would remove it: use require or invariant (base/error.h)"),
]
# A preprocessor condition may test what the compiler defines (__CUDACC__, __AVX2__), never an option of ours: an absent
# backend is a file chosen by CMake.
CONDITION = re.compile(r"^\s*#\s*(?:el)?if(?:n?def)?\b(.*)$", flags=re.MULTILINE)


def violations(path: str, text: str) -> list[str]:
    code = without_comments(text)
    found = []
    for pattern, under, why in RULES:
        for match in re.finditer(pattern, code) if path.startswith(under) else ():
            found.append(f"{path}:{line_of(code, match.start())}: {match.group(0)!r}: {why}")
    for match in CONDITION.finditer(code):
        for name in re.findall(r"[A-Za-z_]\w*", match.group(1)):
            if not name.startswith("__") and name != "defined":
                found.append(f"{path}:{line_of(code, match.start())}: condition on {name}: choose a file in CMake instead")
    return found


def test_native_sources_keep_to_their_words():
    assert [problem for path in files("csrc/", ".cc", ".h", ".cu", ".cuh") for problem in violations(path, read(path))] == []


@pytest.mark.parametrize(
    ("path", "text", "part"),
    [
        ("csrc/hetsp/base/a.cc", "torch::stable::Tensor t;", "neither torch nor Python"),
        ("csrc/hetsp/base/a.cc", "at::parallel_for(0, n, f);", "neither torch nor Python"),
        ("csrc/hetsp/base/a.cc", "c10::Half h;", "neither torch nor Python"),
        ("csrc/hetsp/base/a.cc", "PyErr_SetString(x, y);", "neither torch nor Python"),
        ("csrc/torch_ops/a.cc", 'std::getenv("HETSP_X");', "read once"),
        ("csrc/torch_ops/a.cc", "int f() {\n  exit(1);\n}", "a.cc:2: 'exit('"),
        ("csrc/bindings/a.cc", "std::abort();", "never ends"),
        ("csrc/c10d/a.cc", "if (bad) abort();", "never ends"),
        ("csrc/hetsp/base/a.cc", "std::cerr << 1;", "never prints"),
        ("csrc/hetsp/base/a.cc", 'printf("%d", 1);', "never prints"),
        ("csrc/hetsp/base/a.cc", "assert(x);", "NDEBUG"),
        ("csrc/hetsp/base/a.h", "#ifdef HETSP_HAS_CUDA", "condition on HETSP_HAS_CUDA"),
        ("csrc/hetsp/base/a.h", "#if defined(__CUDACC__) && USE_NCCL", "condition on USE_NCCL"),
    ],
)
def test_a_violation_is_caught(path, text, part):
    (problem,) = violations(path, text)
    assert part in problem


@pytest.mark.parametrize(
    "text",
    [
        "// torch's own threads; never getenv, never exit(1)",
        "void abort() override { work_->abort(); }",
        "#if defined(__CUDACC__)\n#define HD __host__ __device__\n#endif",
        "static_assert(sizeof(int) == 4);",
        'bool exited = pool.on_exit(); snprintf(text, 8, "%d", 1);',
    ],
)
def test_what_is_allowed_passes(text):
    assert violations("csrc/hetsp/base/a.h", text) == []
