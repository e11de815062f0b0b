"""Every command with standard output closed, on a full disk, or in another encoding."""

import json
import os
import signal
from contextlib import ExitStack, contextmanager

import pytest

from tests.commands import ROOT, Command, run_command, run_util
from tests.runs import make_dataset

COMMANDS = {
    "main": ("main.py",),
    "benchmarks": ("-m", "benchmarks"),
    **{
        path.stem: ("-m", f"util_scripts.{path.stem}")
        for path in sorted((ROOT / "util_scripts").glob("*.py"))
        if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
    },
}
CHINESE = ("打架", "不打架")
LATIN_1 = {"PYTHONIOENCODING": "latin-1"}
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
GONE = 141  # exit status of a program ended by SIGPIPE


@contextmanager
def standard_output(kind):
    """Return a function that gives a child process a standard output without a reader, or on a full
    disk."""
    if kind == "full":
        number = os.open("/dev/full", os.O_WRONLY)
    else:
        reading, number = os.pipe()
        os.close(reading)
    try:
        yield lambda: os.dup2(number, 1)
    finally:
        os.close(number)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_without_output_ends_quietly(name):
    with ExitStack() as stack:
        outputs = [stack.enter_context(standard_output(kind)) for kind in ("closed", "full")]
        commands = [Command(*COMMANDS[name], "-h", before=before) for before in outputs]
        closed, full = (stack.enter_context(command).finish() for command in commands)
    assert (closed.status, closed.stderr) == (GONE, "")
    message = "error: standard output: can't be written: No space left on device\n"
    assert (full.status, full.stderr) == (2, message)


TORCH_IMPORTED = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
    if "torch" in sys.modules:
        sys.exit(f"{name} imports torch")
"""


def test_no_command_imports_torch_before_it_has_read_its_flags():
    """That takes seconds, in which Ctrl-C would end in a traceback."""
    modules = [words[-1].removesuffix(".py") for words in COMMANDS.values()]
    modules.remove("benchmarks")
    done = run_command("-c", TORCH_IMPORTED, *modules)
    assert (done.status, done.text) == (0, "")


@pytest.fixture(scope="module")
def chinese(tmp_path_factory):
    """A dataset with two Chinese labels, and a result file of its validation videos."""
    root = tmp_path_factory.mktemp("chinese")
    index = make_dataset(root, labels=CHINESE)
    results = {
        video: [{"label": CHINESE[0], "score": 0.75}, {"label": CHINESE[1], "score": 0.25}]
        for video, entry in index["database"].items()
        if entry["subset"] == "validation"
    }
    (root / "val.json").write_text(json.dumps({"results": results}))
    return root


PRINTING = {
    "eval_accuracy": ("index.json", "val.json"),
    "check_dataset": ("index.json", "jpg"),
    "folder_json": ("jpg", "made.json"),
}


@pytest.mark.parametrize("kind", ["closed", "full"])
@pytest.mark.parametrize("name", PRINTING)
def test_output_that_cannot_be_printed(chinese, name, kind):
    arguments = [chinese / word for word in PRINTING[name]]
    with standard_output(kind) as before:
        done = run_util(name, *arguments, before=before)
    assert done.status == (GONE if kind == "closed" else 2)
    assert "Traceback" not in done.stderr
    assert ("No space left" in done.stderr) == (kind == "full")


def test_program_without_standard_output(chinese):
    arguments = [chinese / word for word in PRINTING["eval_accuracy"]]
    done = run_util("eval_accuracy", *arguments, "--save", before=lambda: os.close(1))
    assert (done.status, done.stderr) == (0, "")
    assert (chinese / "top1.txt").read_text() == "0.5"


@pytest.mark.parametrize("locale", [LATIN_1, ASCII], ids=["latin-1", "ascii"])
@pytest.mark.parametrize("name", PRINTING)
def test_unencodable_names_are_escaped(chinese, name, locale):
    arguments = [chinese / word for word in PRINTING[name]]
    usual = run_util(name, *arguments)
    done = run_util(name, *arguments, environ=locale)
    assert "Traceback" not in done.text
    assert done.status == usual.status
    escaped = usual.stdout.encode("latin-1", "backslashreplace").decode("latin-1")
    assert done.stdout == (escaped if locale is LATIN_1 else usual.stdout)


RUN = (
    "--dataset", "folder", "--n_classes", "2", "--model_depth", "10", "--no_cuda",
    "--resnet_widen_factor", "0.25", "--sample_size", "32", "--sample_duration", "8",
    "--batch_size", "2", "--n_threads", "0", "--learning_rate", "0.0001",
)  # fmt: skip


def train(root, result, *flags, **how):
    places = ("--video_path", "jpg", "--annotation_path", "index.json", "--result_path", result)
    return run_command("main.py", "--root_path", root, *places, *RUN, *flags, **how)


@pytest.mark.parametrize("locale", [LATIN_1, ASCII], ids=["latin-1", "ascii"])
def test_training_in_another_locale(chinese, locale):
    name = "latin-1" if locale is LATIN_1 else "ascii"
    done = train(chinese, name, "--n_epochs", "1", "--inference", environ=locale)
    assert done.status == 0
    assert "Traceback" not in done.stderr
    assert (r"\u6253\u67b6" if locale is LATIN_1 else CHINESE[0]) in done.stdout
    results = json.loads((chinese / name / "val.json").read_text())["results"]
    assert {entry["label"] for entries in results.values() for entry in entries} == {*CHINESE}


@pytest.mark.parametrize("kind", ["closed", "full"])
def test_training_without_output_stops_and_resumes(chinese, kind):
    """Already at the first line, before there is anything to save."""
    with standard_output(kind) as before:
        done = train(chinese, kind, "--n_epochs", "1", before=before)
    assert done.status == (GONE if kind == "closed" else 2)
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 1


def test_lost_output_stops_training_at_a_safe_point(chinese):
    reading, writing = os.pipe()
    flags = ("--n_epochs", "500", "--checkpoint", "500", "--no_val")
    places = ("--video_path", "jpg", "--annotation_path", "index.json", "--result_path", "left")
    arguments = ("main.py", "--root_path", chinese, *places, *RUN, *flags)
    with Command(*arguments, before=lambda: os.dup2(writing, 1)) as command:
        os.close(writing)
        with os.fdopen(reading, "rb") as lines:
            assert any(b"epoch 2" in line for line in lines)
        done = command.finish()
    assert done.status == GONE
    assert done.stderr.startswith("interrupted: stopped")
    assert "--resume_path auto" in done.stderr
    assert (chinese / "left/last.pth").exists()
    more = train(chinese, "left", "--n_epochs", "3", "--no_val", "--resume_path", "auto")
    assert "is at epoch" in more.stderr or more.status == 0


CLOSED_TERMINAL = """
import os, pty, signal, sys, time
from pathlib import Path
from utils import command_line as cli

terminal, ours = pty.openpty()
os.dup2(ours, 1)

def main(argv):
    try:
        os.close(terminal)
        os.kill(os.getpid(), signal.SIGHUP)
        time.sleep(60)
    finally:
        print("the results until then", flush=True)
        Path(sys.argv[1]).touch()

sys.exit(cli.run(main))
"""


def test_cleanup_runs_without_a_terminal(tmp_path):
    done = run_command("-c", CLOSED_TERMINAL, tmp_path / "results")
    assert (done.status, done.stderr) == (128 + signal.SIGHUP, "")
    assert (tmp_path / "results").exists()


def test_a_folder_without_permission_is_one_line(tmp_path):
    code = (
        "import os, sys; from util_scripts import hmdb51_json; from utils.command_line import run\n"
        "def refuse(path): raise PermissionError(13, os.strerror(13), str(path))\n"
        "os.listdir = refuse\n"  # root may read every folder
        "sys.exit(run(lambda argv: hmdb51_json.main(sys.argv[1:])))"
    )
    done = run_command("-c", code, tmp_path, tmp_path, tmp_path / "out")
    assert (done.status, done.stderr) == (2, f"error: {tmp_path}: Permission denied\n")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        ("OSError(5, 'Input/output error', 'a')", "error: a: Input/output error\n"),
        ("OSError(28, 'No space left on device')", "error: can't be written: No space left"),
        ("OSError(5, 'Input/output error')", "Traceback"),
        ("FileNotFoundError(2, 'No such file', 'a')", "Traceback"),
    ],
)
def test_errors_of_the_file_system(error, line):
    code = f"def main(): raise {error}\nimport utils.program as p; exit(p.run_program(main))"
    done = run_command("-c", code)
    assert done.stderr.startswith(line)
    assert done.status == (1 if line == "Traceback" else 2)
