"""benchmarks.gpu_check, rehearsed on a CPU in tiny sizes."""

import json
import signal
import zipfile
from types import SimpleNamespace

import pytest
import torch

from benchmarks.gpu_check import command, device_tests, golden, kit, sections, speed, tables, trace
from benchmarks.gpu_check.record import CUT, FAILED, NOT_RUN, PASSED, Record, read_results
from benchmarks.gpu_check.sections import SECTIONS, Section, run_sections
from benchmarks.gpu_check.setting import Setting, in_small
from errors import UserError
from tests.commands import ROOT, run_command
from tests.runs import make_frames

SLOW = ("tests", "compiled")  # minutes on a CPU
MOST = 600.0  # seconds of a section


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """A kit without wheels."""
    folder = tmp_path_factory.mktemp("kit")
    for number in range(4):
        make_frames(folder / kit.FRAMES / "ab"[number % 2] / str(number), 20, seed=number)
    return folder


def test_the_whole_check_in_small(frames, tmp_path, capsys):
    out = tmp_path / "out"
    words = [str(out), "--rehearse", "--kit", str(frames), *(f"--no_{name}" for name in SLOW)]
    assert command.run_command(words, None) == 0, capsys.readouterr().out
    found = read_results(out / "results.json")
    for name, section in found["sections"].items():
        assert section["status"] == (NOT_RUN if name in SLOW else PASSED), section
        assert bool(section["rows"]) == (name not in SLOW)
    speed = found["sections"]["speed"]["rows"]
    assert [(row["network"], row["batch"], row["what"]) for row in speed] == [
        (network, batch, what)
        for batch in (4, 2)
        for what in ("all layers", "head only", "inference")
        for network in ("R3D-10", "R(2+1)D-10")
    ]
    assert all(row["clips/s"] > 0 and row["of the matrix rate, %"] > 0 for row in speed)
    checks = [row["check"] for row in found["sections"]["quick"]["rows"]]
    assert checks[-1] == "main.py: a run, resumed, has epochs [1, 2]"
    assert found["sections"]["feeding"]["rows"][-1]["clips/s"] > 0
    assert (out / "trace.json.gz").stat().st_size > 0
    page = (out / "results.md").read_text()
    assert "rehearsal, whose figures say nothing" in page
    assert "| R3D-10 | 4 | all layers |" in page
    with pytest.raises(UserError, match="is not empty; choose a new folder"):
        command.run_command(words, None)


def test_a_loss_that_is_nan_is_the_largest_difference():
    header, right = "epoch\tloss\n1\t1.0\n", "2\t0.5\n"
    assert golden._of_logs(header + right, header + right) == 0
    assert golden._of_logs(f"{header}2\tnan\n", header + right) == float("inf")


def test_a_lack_of_memory_of_the_plain_way_leaves_our_figures(tmp_path, monkeypatch):
    def fail(setting, kind):
        def make():
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.")

        return make

    monkeypatch.setattr(speed, "_plain_step", fail)
    setting = in_small(Setting(work=tmp_path, out=tmp_path, frames=tmp_path))
    row = speed.measured(setting, speed.Kind("resnet", 2, "inference"))
    assert row["clips/s"] > 0
    assert row["note"] == "plain: CUDA out of memory"
    assert "plain" not in row


def test_without_a_gpu_one_line_says_so(tmp_path):
    done = run_command(
        "-m", "benchmarks.gpu_check", tmp_path / "o", environ={"CUDA_VISIBLE_DEVICES": "-1"}
    )
    assert (done.status, done.stdout) == (2, "")
    assert done.stderr.startswith("error: torch sees no GPU; --rehearse runs")
    assert not (tmp_path / "o").exists()


@pytest.fixture
def record(tmp_path):
    return Record(tmp_path, {"GPU": "none"}, ["first", "second", "third"])


def run_here(record, minutes=10.0, **rows):
    """Run sections made of functions that yield rows."""
    made = {name: Section("", lambda *_, f=f: f(), 0.0, MOST) for name, f in rows.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sections, "SECTIONS", made)
        patch.setattr(sections, "RESERVE", 0.0)
        run_sections(list(rows), None, record, minutes=minutes)
    return {name: entry["status"] for name, entry in record.sections.items()}


def one_row():
    yield {"what": "x", "passed": True}


def test_a_section_that_fails_does_not_stop_the_others(record):
    def failing():
        yield {"what": "x", "value": float("nan")}
        raise ValueError("no such kernel")

    def wrong():
        yield {"what": "x", "passed": False}

    assert run_here(record, first=failing, second=wrong, third=one_row) == {
        "first": FAILED,
        "second": FAILED,
        "third": PASSED,
    }
    saved = read_results(record.folder / "results.json")["sections"]["first"]
    assert saved["note"] == "ValueError: no such kernel"
    assert saved["rows"] == [{"what": "x", "value": "nan"}]


def test_the_budget_cuts_a_section_off_and_leaves_the_rest_out(record, capsys, monkeypatch):
    """By a clock that only the section moves; it rings the alarm, too, which is set."""
    now = [0.0]
    monkeypatch.setattr(sections, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def slow():
        yield {"what": "x"}
        assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= MOST
        now[0] += 601.0
        signal.raise_signal(signal.SIGALRM)

    found = run_here(record, first=slow, second=one_row)
    assert found == {"first": CUT, "second": NOT_RUN, "third": NOT_RUN}
    saved = read_results(record.folder / "results.json")["sections"]
    assert saved["first"]["rows"] == [{"what": "x"}]
    assert "s were left" in saved["second"]["note"]
    assert "third: not run" in capsys.readouterr().out


def test_what_is_measured_is_saved_at_once(record):
    def rows():
        yield {"what": "x"}
        saved = json.loads((record.folder / "results.json").read_text())["sections"]["first"]
        assert (saved["status"], saved["rows"]) == ("running", [{"what": "x"}])
        yield {"what": "y"}

    assert run_here(record, first=rows)["first"] == PASSED


def test_the_sections_of_the_command_line_are_those_that_run():
    assert tuple(SECTIONS) == command.NAMES
    assert set(tables.TITLES) == set(SECTIONS)


def test_results_are_put_into_a_page(record, tmp_path):
    run_here(record, first=one_row)
    page = tmp_path / "page.md"
    page.write_text(f"before\n{tables.BEGIN}\nold\n{tables.END}\nafter\n")
    tables.insert(read_results(record.folder / "results.json"), page)
    text = page.read_text()
    assert text.startswith(f"before\n{tables.BEGIN}\n- GPU: none\n")
    assert "| x | yes |" in text
    assert "old" not in text
    assert text.endswith(f"\n{tables.END}\nafter\n")
    page.write_text("no markers")
    with pytest.raises(UserError, match="lacks the lines"):
        tables.insert(None, page)


def test_the_page_on_gpus_has_a_place_for_results():
    text = (ROOT / "docs/gpu.md").read_text(encoding="utf-8")
    assert text.count(tables.BEGIN) == text.count(tables.END) == 1
    assert text.index(tables.BEGIN) < text.index(tables.END)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"), (True, "yes"), (False, "**no**"), (3, "3"), (1234.5, "1,234"),
        (0.012345, "0.0123"), ("a|b", "a\\|b"),
    ],
)  # fmt: skip
def test_cells(value, text):
    assert tables.shown(value) == text


def test_tests_are_counted_and_failures_named(tmp_path):
    (tmp_path / "test_x.py").write_text(
        "import pytest\npytestmark = pytest.mark.gpu\n"
        "def test_a(): pass\ndef test_b(): assert 0\ndef test_c(): pytest.skip('x')\n"
    )
    report, output = tmp_path / "report.xml", tmp_path / "tests.txt"
    device_tests.run_tests([tmp_path / "test_x.py"], report, output, on_cpu=True)
    assert list(device_tests.outcomes(report)) == [
        {"tests": "1 passed, 1 skipped", "passed": True},
        {"tests": "test_x::test_b", "passed": False},
    ]
    assert "1 failed, 1 passed" in output.read_text()


def test_the_time_that_kernels_cover():
    kernels = [trace.Kernel("a", 0, 4), trace.Kernel("b", 2, 3), trace.Kernel("c", 3, 6)]
    assert trace.covered([*kernels, trace.Kernel("d", 10, 11)]) == 7


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sm90_xmma_fprop_implicit_gemm_bf16bf16_bf16f32", "convolution"),
        ("void cudnn::engines_precompiled::nchwToNhwcKernel<float>", "change of layout"),
        ("void at::native::batch_norm_collect_statistics_channels_last_kernel", "batch norm"),
        ("void at::native::multi_tensor_apply_kernel<FusedSgdMathFunctor>", "optimiser"),
        ("void at::native::vectorized_elementwise_kernel<4, CUDAFunctor_add>", "elementwise"),
        ("Memcpy HtoD (Pinned -> Device)", "copy"),
        ("void something_else", "other"),
    ],
)
def test_kernels_are_sorted_by_kind(name, kind):
    assert trace.kind_of(name) == kind


def test_wheels_of_a_kit_are_installed_for_this_run_alone(tmp_path):
    about = "carried-1.0.dist-info"
    content = {
        "carried.py": "VALUE = 7\n",
        f"{about}/METADATA": "Metadata-Version: 2.1\nName: carried\nVersion: 1.0\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{about}/RECORD": "",
    }
    (tmp_path / kit.WHEELS).mkdir()
    with zipfile.ZipFile(tmp_path / kit.WHEELS / "carried-1.0-py3-none-any.whl", "w") as wheel:
        for name, text in content.items():
            wheel.writestr(name, text)
    code = (
        "import sys, pathlib; from benchmarks.gpu_check import kit;"
        "kit.unpack(pathlib.Path(sys.argv[1])); import carried; print(carried.VALUE)"
    )
    done = run_command("-c", code, tmp_path)  # checks that nothing is left
    assert (done.status, done.stdout) == (0, "7\n"), done.text


def test_wheels_are_fetched_for_what_a_machine_with_torch_lacks(tmp_path):
    packages = kit.missing_packages()
    assert {"simplejpeg", "msgspec", "tqdm"} <= {name.partition(">")[0] for name in packages}
    assert not [name for name in packages if name.startswith("torch")]
    words = kit.download_command(tmp_path, "3.12", packages)
    assert words[words.index("--python-version") + 1] == "3.12"
    assert "manylinux2014_x86_64" in words
