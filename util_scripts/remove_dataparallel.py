"""Strip the prefix `module.`, which DataParallel puts before every name, from a checkpoint."""

import sys
from collections.abc import Sequence
from pathlib import Path

from errors import UserError
from utils.command_line import INPUT, OutputPath, Parser, run
from utils.files import are_same, back_up
from utils.outputs import STRIPPED, STRIPPED_MARK


def strip(source: Path, destination: Path) -> int:
    """Write `source` without the prefix to `destination`; return how many names had it.

    In place, the original is kept as FILE.bak, and a file without such names is not touched.
    Raises UserError.
    """
    from engine.checkpoint_file import WRAPPER_PREFIX, read_content, save_checkpoint, weights_of

    content = read_content(source)
    weights = weights_of(content)
    stripped = {name.removeprefix(WRAPPER_PREFIX): tensor for name, tensor in weights.items()}
    if len(stripped) < len(weights):
        raise UserError(f"{source}: contains names both with and without {WRAPPER_PREFIX!r}")
    n_changed = len(weights.keys() - stripped.keys())
    is_in_place = are_same(source, destination)
    if is_in_place and n_changed == 0:
        return 0
    if is_in_place:
        print(f"original kept as {back_up(source)}")
    whole = stripped if weights is content else content | {"state_dict": stripped}
    save_checkpoint(destination, whole, mark=STRIPPED_MARK)
    return n_changed


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="util_scripts.remove_dataparallel", description=__doc__)
    parser.add_argument("file_path", type=INPUT, metavar="CHECKPOINT")
    parser.add_argument(
        "--dst_file_path",
        type=OutputPath(STRIPPED, in_place="file_path"),
        metavar="OUT",
        help="file to write (default: in place, keeping CHECKPOINT.bak)",
    )
    options = parser.parse_args(argv)
    destination = options.dst_file_path or options.file_path
    n_changed = strip(options.file_path, destination)
    print(f"{destination}: {n_changed} names stripped of 'module.'")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
