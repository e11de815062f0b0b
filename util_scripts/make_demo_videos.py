"""Draw a small dataset in UCF-101's layout whose classes differ only in motion."""

import sys
from collections.abc import Sequence

from media.demo_videos import MOTIONS, SEED, draw_set, lists_below
from utils.command_line import OUTPUT_FOLDER, Parser, run
from utils.outputs import DEMO_LIST


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="util_scripts.make_demo_videos", description=__doc__)
    parser.add_argument("dst_dir", type=OUTPUT_FOLDER, help="gets pretraining/ and finetuning/")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.also_writes(DEMO_LIST, lambda options: lists_below(options.dst_dir))
    options = parser.parse_args(argv)
    for name, motions in MOTIONS.items():
        n_videos = draw_set(options.dst_dir / name, name, seed=options.seed)
        print(f"{options.dst_dir / name}: {n_videos} videos of {', '.join(motions)}")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
