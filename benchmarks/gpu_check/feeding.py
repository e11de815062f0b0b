"""Whether clips are loaded as fast as the GPU computes: one core, and an epoch of main.py."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

from benchmarks.frames import index_of
from benchmarks.gpu_check.record import Record
from benchmarks.gpu_check.setting import NAMES, Setting, run_main
from benchmarks.gpu_check.tables import Row, Value
from benchmarks.gpu_check.utilisation import Utilisation
from benchmarks.loading import of_training_clips
from tests.runs import read_table

EPOCHS = 2  # the first one autotunes and starts the workers


def rows(setting: Setting, record: Record) -> Iterator[Row]:
    one = of_training_clips(setting.frames)
    yield {"what": "loading, one core", "clips/s": one.ours, "plain": one.plain}
    for row in record.rows("speed"):
        speed, plain = row.get("clips/s"), row.get("plain")
        if row["what"] == "all layers" and isinstance(speed, float):
            yield {
                "what": f"cores for {row['network']}, all layers, batch {row['batch']}",
                "cores": speed / one.ours,
                "plain cores": plain / one.plain if isinstance(plain, float) else None,
            }
    n_workers = 1 if setting.on_cpu else os.cpu_count() or 1
    batch_size = setting.batch_sizes[0]
    what = f"epoch from JPGs, {NAMES['resnet']}-{setting.depth}, batch {batch_size}"
    yield {"what": f"{what}, {n_workers} loader processes", **epoch(setting, n_workers)}


def epoch(setting: Setting, n_workers: int) -> Row:
    """Train with main.py; return the figures of the last epoch."""
    work = setting.work / "feeding"
    work.mkdir()
    index = repeated(index_of(setting.frames, work), setting.epoch_clips)
    result = work / "res"
    arguments = [
        "--video_path", setting.frames.resolve(), "--annotation_path", index,
        "--result_path", result, "--dataset", "folder", "--model_depth", setting.depth,
        "--resnet_widen_factor", setting.width, "--sample_size", setting.side,
        "--batch_size", setting.batch_sizes[0], "--n_threads", n_workers, "--n_epochs", EPOCHS,
        "--no_val", "--learning_rate", 0.001, *(["--no_cuda"] if setting.on_cpu else []),
    ]  # fmt: skip
    with Utilisation(reads=not setting.on_cpu) as utilisation:
        run_main(arguments)
    log = result / "time.log"
    last = read_table(log.read_text(encoding="utf-8"))[-1]
    ended = log.stat().st_mtime
    figures: dict[str, Value] = {
        "clips/s": last["clips_per_second"],
        "waiting for clips, %": 100 * last["waiting"] / last["train"],
        "GPU busy, %": utilisation.mean(ended - last["train"], ended),
    }
    return figures


def repeated(index: Path, n_clips: int) -> Path:
    """Write an index whose training videos are those of another one, over and over."""
    content = json.loads(index.read_text(encoding="utf-8"))
    entries = content["database"].items()
    videos = [(name, entry) for name, entry in entries if entry["subset"] == "training"]
    database = {}
    for number in range(n_clips):
        name, entry = videos[number % len(videos)]
        folder = entry.get("video_path", f"{entry['annotations']['label']}/{name}")
        database[f"{name}-{number}"] = entry | {"video_path": folder}
    path = index.with_name("repeated.json")
    repeated = json.dumps(content | {"database": database}, allow_nan=False)
    path.write_text(repeated, encoding="utf-8")
    return path
