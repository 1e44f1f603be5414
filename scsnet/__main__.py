"""The command line: `python -m scsnet` and `scsnet`. Arguments in, exit code out.

A user's mistake is one line on stderr and exit code 2; what shows a traceback is a bug of ours.
"""

from __future__ import annotations

import sys

_INTERRUPTED = 130  # as a shell reports a program that Ctrl-C ended


def main(arguments: list[str] | None = None) -> int:
    """Run one command. SystemExit for --help, --version and arguments that make no sense."""
    try:
        from .cli.main import run  # here, so that Ctrl-C while importing shows no traceback

        return run(arguments)
    except KeyboardInterrupt:
        print("scsnet: interrupted", file=sys.stderr)
        return _INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
