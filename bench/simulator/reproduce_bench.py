"""Every published table beside the simulated one, as a result file."""

import argparse
import datetime
import json
import shlex
import sys
from pathlib import Path

from bench.support.machine import describe_machine
from hetsp_ext.simulator.reproduce import NAMES, reproduce


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of real lengths; without, stand-ins")
    parser.add_argument("--batches", type=int, default=4, help="steps to average")
    parser.add_argument("--out", type=Path, help="result file")
    args = parser.parse_args()
    machine = describe_machine()
    reports = []
    for name in NAMES:
        report = reproduce(name, args.data, args.batches)
        print(report)
        reports.append(report.as_dict())
    if args.out is not None:
        given = ["DIR" if value == str(args.data) else value for value in sys.argv[1:]]  # the folder is the reader's own
        command = ["python", "-m", "bench.simulator.reproduce_bench", *given]
        date = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")
        record = {"date": date, "command": shlex.join(command), "machine": machine, "reports": reports}
        args.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
