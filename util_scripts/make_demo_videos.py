"""Draws a small set of videos in UCF-101's layout, whose classes differ in motion alone.

Every class takes its backgrounds, colours, sizes, places and speeds from the same draws: a class
has the same picture statistics as any other, and only the order of the frames tells them apart.
None turns into another in a mirror, since training flips clips.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

from errors import UserError
from media.ffmpeg import Ffmpeg
from utils.command_line import OUTPUT_FOLDER, Parser, run
from utils.files import atomic_write
from utils.outputs import DEMO_LIST
from utils.threads import thread_pool

WIDTH, HEIGHT, RATE, SECONDS = 96, 72, 25, 2
SMALLEST, LARGEST = 14, 30  # side of the square, pixels
N_BACKGROUNDS = 100
N_GROUPS, CLIPS_PER_GROUP = 24, 2  # a group shares background and colour, as in UCF-101
SPLITS, SIDES = (1, 2, 3), ("train", "test")
GROUPS_PER_TEST = N_GROUPS // len(SPLITS)

# Places go from 0 to 1 over what the frame leaves room for. `{u}` runs from 0 to 1 and jumps back;
# `{v}` runs to 1 and back; `{x}`, `{y}`, `{s}` are fixed draws. All are uniform over a video.
STILL = {"x": "{x}", "y": "{y}", "size": "{s}"}
MOTIONS: dict[str, dict[str, dict[str, str]]] = {
    "pretraining": {
        "Rise": STILL | {"y": "1-{u}"},
        "Fall": STILL | {"y": "{u}"},
        "Grow": STILL | {"size": "{u}"},
        "Shrink": STILL | {"size": "1-{u}"},
        "Sideways": STILL | {"x": "{v}"},
        "Still": STILL,
    },
    "finetuning": {
        "UpAndDown": STILL | {"y": "{v}"},
        "Pulse": STILL | {"size": "{v}"},
        "Jump": {"x": "{jx}", "y": "{jy}", "size": "{s}"},
        "Slide": STILL | {"x": "{v}", "y": "{v2}"},
    },
}


def filter_graph(motion: dict[str, str], group: Random, clip: Random) -> str:
    """ffmpeg's description of one video; `group` and `clip` are the draws of the two levels."""
    background = group.randrange(N_BACKGROUNDS)
    colour = _colour(group, 150, 256)
    x, y, side = course(motion, clip)
    return (
        f"gradients=s={WIDTH}x{HEIGHT}:r={RATE}:d={SECONDS}:{_background(background)}[back];"
        f"color=c={colour}:s={LARGEST}x{LARGEST}:r={RATE}:d={SECONDS},"
        f"scale=w='{side}':h='{side}':eval=frame[square];"
        f"[back][square]overlay=x='(W-w)*({x})':y='(H-h)*({y})':eval=frame"
    )


def course(motion: dict[str, str], clip: Random) -> tuple[str, str, str]:
    """Where the square is at second `t`, as ffmpeg's expressions: x and y as shares of the room
    that the frame leaves, and its side in pixels."""
    draws = {
        "x": f"{clip.random():.3f}",
        "y": f"{clip.random():.3f}",
        "s": f"{clip.random():.3f}",
    }
    period, phase = clip.uniform(0.5, 0.9), clip.random()
    turn = f"mod(t/{period:.3f}+{phase:.3f},1)"
    there_and_back = f"abs(2*mod(t/{2 * period:.3f}+{phase:.3f},1)-1)"
    shifted = f"abs(2*mod(t/{2 * period:.3f}+{phase + clip.random():.3f},1)-1)"
    step = f"floor(t/{period / 5:.3f})"  # Jump's places: a new one some 8 times a second
    places = {
        axis: f"mod(abs(sin({step}*{seed}+{phase * 90:.2f}))*1000,1)"
        for axis, seed in (("jx", 12.9898), ("jy", 78.233))
    }
    values = draws | {"u": turn, "v": there_and_back, "v2": shifted} | places
    x, y, size = (motion[name].format(**values) for name in ("x", "y", "size"))
    return x, y, f"trunc({SMALLEST}+({LARGEST - SMALLEST})*({size}))"


def _colour(draw: Random, darkest: int, brightest: int) -> str:
    return "0x" + "".join(f"{draw.randrange(darkest, brightest):02x}" for _ in range(3))


def _background(number: int) -> str:
    """One picture of the pool, described in full: ffmpeg's own random colours have no seed."""
    draw = Random(f"background {number}")
    colours = "".join(f"c{i}={_colour(draw, 0, 110)}:" for i in range(4))
    ends = f"x0={draw.randrange(WIDTH)}:y0=0:x1={draw.randrange(WIDTH)}:y1={HEIGHT - 1}"
    return f"nb_colors=4:{colours}{ends}:seed=1:speed=0.00001"


def draw_set(folder: Path, name: str, *, seed: int) -> int:
    """Draw videos and lists of one of MOTIONS below `folder`; returns the number of videos.

    Raises UserError where ffmpeg fails.
    """
    jobs: list[tuple[Path, str]] = []
    for label, motion in MOTIONS[name].items():
        for group in range(1, N_GROUPS + 1):
            for clip in range(1, CLIPS_PER_GROUP + 1):
                path = folder / "videos" / label / f"v_{label}_g{group:02d}_c{clip:02d}.avi"
                key = f"{seed}/{name}/{group}"  # the same draws for every class
                jobs.append((path, filter_graph(motion, Random(key), Random(f"{key}/{clip}"))))

    def draw(path: Path, graph: str) -> None:
        if path.exists():
            return
        coding = ["-c:v", "mpeg4", "-q:v", "3", "-f", "avi", "-threads", "1"]
        arguments = ["-filter_complex", graph, "-t", str(SECONDS), *coding]
        with atomic_write(path) as part:
            ran = ffmpeg.run(["-y", *arguments, str(part.absolute())])
            if ran.returncode:
                raise UserError(f"{path}: ffmpeg: {(ran.errors or ['failed'])[0]}")

    with thread_pool() as pool, Ffmpeg() as ffmpeg:
        list(pool.map(lambda job: draw(*job), jobs))
    _write_lists(folder / "lists", [path for path, _ in jobs], list(MOTIONS[name]))
    return len(jobs)


def _write_lists(folder: Path, videos: Sequence[Path], labels: Sequence[str]) -> None:
    """classInd.txt and three splits; a third of the groups each is the test sides."""
    numbers = {label: number for number, label in enumerate(labels, start=1)}
    lines = "".join(f"{number} {label}\n" for label, number in numbers.items())
    _write_list(folder / "classInd.txt", lines)
    for split in SPLITS:
        groups = range((split - 1) * GROUPS_PER_TEST + 1, split * GROUPS_PER_TEST + 1)
        tested = {f"_g{group:02d}_" for group in groups}
        train, test = "", ""
        for video in videos:
            label = video.parent.name
            if any(group in video.name for group in tested):
                test += f"{label}/{video.name}\n"
            else:
                train += f"{label}/{video.name} {numbers[label]}\n"
        _write_list(folder / f"trainlist0{split}.txt", train)
        _write_list(folder / f"testlist0{split}.txt", test)


def _write_list(path: Path, text: str) -> None:
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8")


def lists_below(folder: Path) -> Iterator[Path]:
    """All lists that main writes below a folder."""
    for name in MOTIONS:
        yield folder / name / "lists/classInd.txt"
        for split in SPLITS:
            yield from (folder / name / f"lists/{side}list0{split}.txt" for side in SIDES)


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="util_scripts.make_demo_videos", description=__doc__)
    parser.add_argument("dst_dir", type=OUTPUT_FOLDER, help="gets pretraining/ and finetuning/")
    parser.add_argument("--seed", type=int, default=1)
    parser.also_writes(DEMO_LIST, lambda options: lists_below(options.dst_dir))
    options = parser.parse_args(argv)
    for name, motions in MOTIONS.items():
        n_videos = draw_set(options.dst_dir / name, name, seed=options.seed)
        print(f"{options.dst_dir / name}: {n_videos} videos of {', '.join(motions)}")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
