"""`hetsp doctor`: what this machine offers, and why a thing is absent. Exit status 1 if a thing is there and does not work."""

import argparse
import json

from ..doctor import as_records, examine


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("doctor", help="what this machine offers, and why a thing is absent", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object a line: name, present, detail, broken")


def run(args: argparse.Namespace) -> int:
    findings = examine()
    status = int(any(finding.broken for finding in findings))
    if args.json:
        for record in as_records(findings):
            print(json.dumps(record))
        return status
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        print(f"{'!' if finding.broken else '+' if finding.present else '-'} {finding.name:<{width}}  {finding.detail}")
    return status
