"""The command line of the benchmark."""

import subprocess
import sys


def test_an_unknown_section_is_named(root):
    command = [sys.executable, "benchmarks/benchmark.py", "--sections", "parts"]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert result.returncode == 2
    assert "parts" in result.stderr
    assert "Traceback" not in result.stderr
