"""Draw a small dataset in UCF-101's layout whose classes differ only in motion.

All classes share the same random backgrounds, colours, sizes, positions and speeds, so single
frames do not show the class, only their order does. No class is the mirror image of another,
because training flips clips.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

from errors import UserError
from media.ffmpeg import Ffmpeg
from utils.files import atomic_write, write_text
from utils.reading import read_text, shown_name
from utils.threads import thread_pool

WIDTH, HEIGHT, RATE, SECONDS = 96, 72, 25, 2
SMALLEST, LARGEST = 14, 30  # side of the square, pixels
N_BACKGROUNDS = 100
N_GROUPS, CLIPS_PER_GROUP = 24, 2  # a group shares background and colour, as in UCF-101
SPLITS = (1, 2, 3)
SEED = 1  # the default
GROUPS_PER_TEST = N_GROUPS // len(SPLITS)

# Positions from 0 to 1 within the frame. `{u}` runs from 0 to 1 and jumps back, `{v}` runs to 1 and
# back, `{x}`, `{y}`, `{s}` are constant. All are uniformly distributed.
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
    """Return ffmpeg's filter graph of a video; `group` and `clip` draw what a group of clips has in
    common, and what is a clip's own."""
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
    """Return the square's x, y (0 to 1) and side (pixels) at second `t`, as ffmpeg expressions."""
    draws = {
        "x": f"{clip.random():.3f}",
        "y": f"{clip.random():.3f}",
        "s": f"{clip.random():.3f}",
    }
    period, phase = clip.uniform(0.5, 0.9), clip.random()
    turn = f"mod(t/{period:.3f}+{phase:.3f},1)"
    there_and_back = f"abs(2*mod(t/{2 * period:.3f}+{phase:.3f},1)-1)"
    shifted = f"abs(2*mod(t/{2 * period:.3f}+{phase + clip.random():.3f},1)-1)"
    step = f"floor(t/{period / 5:.3f})"  # a new position of Jump about 8 times per second
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
    """Return gradient options for one background; ffmpeg's random colours can't be seeded."""
    draw = Random(f"background {number}")
    colours = "".join(f"c{i}={_colour(draw, 0, 110)}:" for i in range(4))
    ends = f"x0={draw.randrange(WIDTH)}:y0=0:x1={draw.randrange(WIDTH)}:y1={HEIGHT - 1}"
    return f"nb_colors=4:{colours}{ends}:seed=1:speed=0.00001"


def draw_set(folder: Path, name: str, *, seed: int) -> int:
    """Draw the videos and lists of one of MOTIONS below `folder`; return the number of videos.

    Raises UserError if ffmpeg fails, or if there are videos of another seed.
    """
    _keep_seed(folder, seed)
    jobs: list[tuple[Path, str]] = []
    for label, motion in MOTIONS[name].items():
        for group in range(1, N_GROUPS + 1):
            for clip in range(1, CLIPS_PER_GROUP + 1):
                path = folder / "videos" / label / f"v_{label}_g{group:02d}_c{clip:02d}.avi"
                key = f"{seed}/{name}/{group}"  # the same for every class
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


def _keep_seed(folder: Path, seed: int) -> None:
    """Keep the seed beside the lists. Raises UserError if another one is there, or if videos are
    and the seed is not the default, which earlier versions did not keep."""
    path = folder / "lists/seed.txt"
    if path.exists():
        found = read_text(path, "seed").strip()
        if found != str(seed):
            raise UserError(
                f"--seed {seed}: {folder} holds videos of --seed {shown_name(found)}; remove it, "
                "or give another folder"
            )
    elif seed != SEED and (folder / "videos").exists():
        raise UserError(
            f"--seed {seed}: the seed of the videos in {folder} is unknown, because an earlier "
            f"version did not keep it; if it is {seed}, write {seed} to {path}, else remove "
            f"{folder}, or give another folder"
        )
    write_text(path, f"{seed}\n")


def _write_lists(folder: Path, videos: Sequence[Path], labels: Sequence[str]) -> None:
    """Write classInd.txt and three splits; each tests on another third of the groups."""
    numbers = {label: number for number, label in enumerate(labels, start=1)}
    lines = "".join(f"{number} {label}\n" for label, number in numbers.items())
    write_text(folder / "classInd.txt", lines)
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
        write_text(folder / f"trainlist0{split}.txt", train)
        write_text(folder / f"testlist0{split}.txt", test)


def lists_below(folder: Path) -> Iterator[Path]:
    """Yield the paths of all lists below a folder."""
    for name in MOTIONS:
        yield folder / name / "lists/classInd.txt"
        for split in SPLITS:
            yield from (
                folder / name / f"lists/{side}list0{split}.txt" for side in ("train", "test")
            )
