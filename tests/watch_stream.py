"""Measure predict_video on streams, in a separate process: its delay and its memory.

python -m tests.watch_stream latency --seconds 60 --model_depth 18
python -m tests.watch_stream memory --hours 10

Latency: seconds from a window's last frame at a camera (25 fps) until its line is printed. Memory:
resident memory after each tenth of a run over a looped video of ten minutes, all outputs on and
as fast as it is read.
"""

import argparse
import os
import re
import socket
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch

from media.ffmpeg import Ffmpeg
from models.build import build
from parsing import options_of
from predict.video_reader import SHOWINFO
from tests.videos import draw

RATE = 25
LOOP_MINUTES, LOOP_RATE = 10, 5
LINE = re.compile(r"  (\d+):(\d\d):(\d\d\.\d\d) - (\d+):(\d\d):(\d\d\.\d\d)  ")
H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "25")


def write_checkpoint(path, **given):
    options = options_of({"n_classes": 2, **given})
    model = build("resnet", options.model_depth, n_classes=2, **options.model_options())
    about = {"arch": options.arch, "class_names": ["a", "b"], "options": options.as_plain()}
    torch.save({"epoch": 1, "state_dict": model.state_dict(), **about}, path)


def free_port():
    with socket.socket() as any_port:
        any_port.bind(("127.0.0.1", 0))
        return any_port.getsockname()[1]


def start(arguments):
    """A forked predict_video: (its process id, what it prints, as a file)."""
    from util_scripts.predict_video import main

    ours, theirs = os.pipe()
    child = os.fork()
    if child:
        os.close(theirs)
        return child, open(ours, encoding="utf-8")
    status = 70
    try:
        os.dup2(theirs, 1)
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        status = main(arguments)
    finally:
        sys.stdout.flush()
        os._exit(status)


def watch_latency(root, *, seconds, model_depth, stride):
    write_checkpoint(root / "c.pth", model_depth=model_depth)
    url = f"tcp://127.0.0.1:{free_port()}"
    picture = ["-re", "-f", "lavfi", "-i", f"testsrc2=s=640x360:r={RATE}:d={seconds}"]
    output = ["-vf", SHOWINFO, *H264, "-f", "mpegts", f"{url}?listen=1"]
    camera = Ffmpeg().stream([*picture, *output])
    sent = []

    def note():
        while camera.next_time() is not None:
            sent.append(time.monotonic())

    threading.Thread(target=note, daemon=True).start()
    time.sleep(1)  # until it listens
    flags = ["--checkpoint", str(root / "c.pth"), "--no_cuda", "--timeline"]
    child, lines = start([url, *flags, "--stride", str(stride)])
    delays = []
    for line in lines:
        if match := LINE.match(line):
            now = time.monotonic()
            hours, minutes, end = int(match[4]), int(match[5]), float(match[6])
            last = round((3600 * hours + 60 * minutes + end) * RATE)
            if 5 * RATE < last <= len(sent):  # ffmpeg looks at a stream for a while first
                delays.append(now - sent[last - 1])
    os.waitpid(child, 0)
    camera.finish()
    delays.sort()
    middle, late = statistics.median(delays), delays[int(0.95 * len(delays))]
    print(f"{len(delays)} windows, seconds late: {middle:.2f} in the middle, 95% within {late:.2f}")
    print(f"at most {delays[-1]:.2f}")


def watch_memory(root, *, hours):
    write_checkpoint(root / "c.pth", model_depth=10, resnet_widen_factor=0.25, sample_size=32)
    loop = root / "loop.ts"
    draw(loop, seconds=60 * LOOP_MINUTES, rate=LOOP_RATE, extra=("-c:v", "libx264", "-g", "25"))
    times = round(hours * 60 / LOOP_MINUTES)
    url = f"http://127.0.0.1:{free_port()}"
    arguments = ["-stream_loop", str(times - 1), "-i", str(loop), "-c", "copy", "-f", "mpegts"]
    server = Ffmpeg().stream([*arguments, "-listen", "1", url])
    time.sleep(1)
    table = root / "a.csv"
    outputs = ["--csv", str(table), "--json", str(root / "a.json"), "--alert", "a"]
    child, lines = start([url, "--checkpoint", str(root / "c.pth"), "--no_cuda", *outputs])
    threading.Thread(target=lambda: list(lines), daemon=True).start()
    step = 1
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        reached, held = last_second(table), resident(child)
        if reached >= step * hours * 360:
            print(f"{reached / 3600:5.2f} hours: {held} MiB", flush=True)
            step += 1
        time.sleep(0.2)
    server.finish()
    print(
        f"{last_second(table) / 3600:5.2f} hours at the end, {table.stat().st_size} bytes of rows"
    )


def last_second(table):
    """The end of the last window of a CSV file that grows; 0 while there is none."""
    if not table.exists():
        return 0.0
    with table.open("rb") as file:
        file.seek(max(0, table.stat().st_size - 1000))
        rows = file.read().splitlines(keepends=True)[1:]
    whole = [row for row in rows if row.endswith(b"\n")]
    return float(whole[-1].split(b",")[2]) if whole else 0.0


def resident(process):
    """MiB that a process holds; 0 once it has ended."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    return round(int(found[1]) / 1024) if found else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("latency", "memory"))
    parser.add_argument("--seconds", type=int, default=60, help="of the camera")
    parser.add_argument("--model_depth", type=int, default=18)
    parser.add_argument("--stride", type=int, default=8)
    parser.add_argument("--hours", type=float, default=10, help="of the looped video")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.what == "latency":
            how = {"model_depth": options.model_depth, "stride": options.stride}
            watch_latency(Path(folder), seconds=options.seconds, **how)
        else:
            watch_memory(Path(folder), hours=options.hours)


if __name__ == "__main__":
    main()
