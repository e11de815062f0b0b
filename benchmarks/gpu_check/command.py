"""The command line of the check."""

import tempfile
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from subprocess import CalledProcessError

from benchmarks.gpu_check.kit import DRAWN, FRAMES, ROOT, pack
from errors import UserError
from utils.command_line import INPUT, OUTPUT_FOLDER, Parser

DOCS = ROOT / "docs" / "gpu.md"
# Of SECTIONS, whose modules import torch: the parser answers at once.
NAMES = ("quick", "correctness", "golden", "speed", "feeding", "trace", "tests", "compiled")


def build_parser(description: str | None) -> Parser:
    parser = Parser(prog="benchmarks.gpu_check", description=description)
    add = parser.add_argument
    add("out", type=OUTPUT_FOLDER, nargs="?", help="folder for the results")
    add("--minutes", type=float, default=8.0, help="budget; what does not fit is not run (8)")
    add("--kit", type=INPUT, help="folder of --pack: its wheels are installed, its frames used")
    add("--rehearse", action="store_true", help="small networks and clips on the CPU")
    add("--only", nargs="+", choices=NAMES, metavar="NAME", help=f"of {', '.join(NAMES)}")
    for name in NAMES:
        add(f"--no_{name}", action="store_true", help=f"leave out the section {name}")
    add("--pack", type=OUTPUT_FOLDER, metavar="KIT", help="fill a folder with wheels and frames")
    add("--python", default="3.12", help="version of Python that the wheels are for (3.12)")
    add("--tables", type=INPUT, metavar="JSON", help=f"put these results into {DOCS.name}")
    return parser


def run_command(argv: Sequence[str] | None, description: str | None) -> int:
    options = build_parser(description).parse_args(argv)
    if options.tables is not None:
        from benchmarks.gpu_check.record import read_results
        from benchmarks.gpu_check.tables import insert

        insert(read_results(options.tables), DOCS)
        print(f"{DOCS}: written")
        return 0
    if options.pack is not None:
        _check_empty(options.pack)
        _pack(options.pack, options.python)
        return 0
    if options.out is None:
        raise UserError("a folder for the results is missing: python -m benchmarks.gpu_check OUT")
    _check_empty(options.out)
    return _check(options)


def _check_empty(folder: Path) -> None:
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder}: is not empty; choose a new folder")


def _pack(folder: Path, python: str) -> None:
    try:
        pack(folder, python)
    except CalledProcessError:
        raise UserError(f"--pack {folder}: pip could not fetch all wheels, see above") from None
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    size = sum(path.stat().st_size for path in files) / 2**20
    print(f"{folder}: {len(files)} files, {size:.1f} MiB")


def _check(options: Namespace) -> int:
    """Run the sections; return 1 if one failed."""
    import torch

    from benchmarks.gpu_check.quick import machine
    from benchmarks.gpu_check.record import FAILED, Record
    from benchmarks.gpu_check.sections import run_sections
    from benchmarks.gpu_check.setting import Setting, in_small

    if not options.rehearse and not torch.cuda.is_available():
        raise UserError("torch sees no GPU; --rehearse runs everything in small sizes on the CPU")
    wanted = [name for name in options.only or NAMES if not getattr(options, f"no_{name}")]
    facts = machine()
    print("\n".join(f"{name}: {value}" for name, value in facts.items()), flush=True)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        setting = Setting(work=work, out=options.out, frames=_frames(options, work))
        if options.rehearse:
            setting = in_small(setting)
        record = Record(options.out, facts, NAMES)
        run_sections(wanted, setting, record, minutes=options.minutes)
    failed = record.of_status(FAILED)
    print(f"\n{options.out}: " + (f"failed: {', '.join(failed)}" if failed else "nothing failed"))
    return 1 if failed else 0


def _frames(options: Namespace, work: Path) -> Path:
    """Return the kit's folder of frames, or draw some."""
    if options.kit is not None:
        frames = options.kit / FRAMES
        if not frames.is_dir():
            raise UserError(f"--kit {options.kit}: has no folder {FRAMES}; make it with --pack")
        return frames
    from benchmarks.frames import draw_frames

    draw_frames(work / FRAMES, **({"n_videos": 4, "seconds": 1} if options.rehearse else DRAWN))
    return work / FRAMES
