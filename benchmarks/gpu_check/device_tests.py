"""The tests that need a GPU, run by pytest in a process of its own."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

from benchmarks.gpu_check.kit import ROOT
from benchmarks.gpu_check.record import Record
from benchmarks.gpu_check.setting import Setting
from benchmarks.gpu_check.tables import Row

MARK = "mark.gpu"
ON_CPU = {"GPU_TESTS_ON_CPU": "1"}  # rehearses them


def rows(setting: Setting, record: Record) -> Iterator[Row]:
    report = setting.work / "tests.xml"
    output = setting.out / "tests.txt"
    files = [path for path in sorted(ROOT.glob("tests/test_*.py")) if MARK in path.read_text()]
    run_tests(files, report, output, on_cpu=setting.on_cpu)
    yield from outcomes(report)


def run_tests(files: list[Path], report: Path, output: Path, *, on_cpu: bool) -> None:
    """Run the tests marked gpu; write what pytest prints, and its report. Raises RuntimeError if
    pytest itself fails."""
    command = [sys.executable, "-m", "pytest", "-v", "-m", "gpu", "-p", "no:cacheprovider"]
    command += [f"--junitxml={report}", *map(str, files)]
    environ = {**os.environ, **(ON_CPU if on_cpu else {})}
    with output.open("wb") as file:
        done = subprocess.run(command, cwd=ROOT, env=environ, stdout=file, stderr=file, check=False)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"pytest: status {done.returncode}, see {output.name}")


def outcomes(report: Path) -> Iterator[Row]:
    """Yield the counts of a JUnit report, and a row for each test that failed."""
    found = list(ET.parse(report).getroot().iter("testcase"))
    failed = [case for case in found if {"failure", "error"} & {child.tag for child in case}]
    skipped = [case for case in found if case.find("skipped") is not None]
    n_passed = len(found) - len(failed) - len(skipped)
    yield {"tests": f"{n_passed} passed, {len(skipped)} skipped", "passed": n_passed > 0}
    for case in failed:
        module = case.get("classname", "").rpartition(".")[2]
        yield {"tests": f"{module}::{case.get('name')}", "passed": False}
