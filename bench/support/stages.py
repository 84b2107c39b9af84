"""The record of a run in stages: after each, a complete JSON file. Used by bench/gpu_acceptance.sh; needs no package.

python3 bench/support/stages.py FILE NAME --status N --seconds S --limit S --log FILE [--junit FILE]
python3 bench/support/stages.py FILE NAME --left-out REASON
python3 bench/support/stages.py FILE --show
"""

from __future__ import annotations

import argparse
import datetime
import fcntl
import json
import platform
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

TIMED_OUT = (124, 137)  # of timeout(1)
LINES = 12  # of a log that ended badly


def counts(junit: Path) -> dict[str, int] | None:
    """How many tests of a JUnit file passed, failed, were skipped; None where there is no such file."""
    if not junit.is_file():
        return None
    suites = list(ET.parse(junit).iter("testsuite"))
    total, failures, errors, skipped = (
        sum(int(suite.get(key, 0)) for suite in suites) for key in ("tests", "failures", "errors", "skipped")
    )
    return {"passed": total - failures - errors - skipped, "failed": failures + errors, "skipped": skipped}


def stage(options: argparse.Namespace) -> dict[str, Any]:
    """One stage's record."""
    record: dict[str, Any] = {"stage": options.name}
    if options.left_out is not None:
        return record | {"verdict": f"left out: {options.left_out}"}
    verdict = "ok" if options.status == 0 else "timed out" if options.status in TIMED_OUT else "failed"
    record |= {"verdict": verdict, "status": options.status, "seconds": options.seconds, "limit": options.limit}
    log = (
        options.log.read_text(encoding="utf-8", errors="replace").splitlines() if options.log and options.log.is_file() else []
    )
    said = [line for line in log if line.strip()]
    record["said"] = said[-1:] if verdict == "ok" else said[-LINES:]
    tests = counts(options.junit) if options.junit else None
    return record | ({"tests": tests} if tests else {})


def shown(record: dict[str, Any]) -> str:
    tests = ", ".join(f"{count} {what}" for what, count in record.get("tests", {}).items())
    said = tests or " | ".join(record.get("said", [])[-1:])
    took = f"{record['seconds']:>4} s" if "seconds" in record else "      "
    return f"{record['stage']:<12} {took}  {record['verdict']:<10} {said[:140]}"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("name", nargs="?")
    parser.add_argument("--status", type=int)
    parser.add_argument("--seconds", type=int)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--junit", type=Path)
    parser.add_argument("--left-out")
    parser.add_argument("--show", action="store_true")
    options = parser.parse_args(argv)
    with options.file.open("a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # stages may end at the same time
        file.seek(0)
        text = file.read()
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        run = json.loads(text) if text else {"began": now, "processor": platform.machine(), "stages": []}
        if options.show:
            print("\n".join(shown(record) for record in run["stages"]))
            return
        record = stage(options)
        run["stages"].append(record)
        file.seek(0)
        file.truncate()
        file.write(json.dumps(run, indent=1) + "\n")
    print(shown(record), flush=True)


if __name__ == "__main__":
    main()
