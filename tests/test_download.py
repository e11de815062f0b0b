"""Hosted weights are downloaded once and whole, checked before use, or refused in one line."""

import hashlib
import json
import logging
import os
import signal
import socket
import ssl
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import main
from engine.checkpoint import load_checkpoint
from errors import UserError
from models import download
from models.download import cached_path, fetch
from models.weights import WEIGHTS
from tests.commands import Command
from tests.runs import limit_file_size, make_dataset, small_flags, small_run
from tests.servers import dripping, serving
from tests.test_walking import without_root
from util_scripts import (
    export_model,
    extract_features,
    inspect_checkpoint,
    predict_video,
)
from util_scripts import weights as weights_command

NAME = "torchvision:r3d_18"
R3D_18 = WEIGHTS[NAME]
CONTENT = bytes(range(256)) * 1000
START = b"HTTP/1.0 200 OK\r\nContent-Length: 1000000\r\n\r\n" + bytes(500_000)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of torch, in no folder that the user has."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("WEIGHTS_MIRROR", raising=False)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache/hub/checkpoints"


def hosted(content=CONTENT):
    """Weights whose file has this content, with its SHA-256 in the name."""
    return replace(R3D_18, file=f"small-{hashlib.sha256(content).hexdigest()[:8]}.pth")


def put_on_host(folder, weights, content=CONTENT):
    path = folder / "models" / weights.file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.mark.parametrize(
    "variables", [{}, {"XDG_CACHE_HOME": "~/x"}, {"XDG_CACHE_HOME": "/x", "TORCH_HOME": "~/y"}]
)
def test_files_lie_where_torch_keeps_them(variables, monkeypatch):
    for name in ("XDG_CACHE_HOME", "TORCH_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cached_path(R3D_18) == Path(torch.hub.get_dir(), "checkpoints", R3D_18.file)


def test_a_user_without_a_home_has_the_folder_that_torch_takes(monkeypatch):
    def unknown(uid):
        raise KeyError(uid)

    for name in ("HOME", "XDG_CACHE_HOME", "TORCH_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    assert cached_path(R3D_18) == Path(torch.hub.get_dir(), "checkpoints", R3D_18.file)


def refusal(weights):
    """The message of a failed download, which is one line."""
    with pytest.raises(UserError) as caught:
        fetch(weights)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def left_in(cache):
    return sorted(path.name for path in cache.rglob("*")) if cache.exists() else []


@pytest.fixture
def mirror(cache, tmp_path, monkeypatch):
    with serving(tmp_path / "host") as server:
        monkeypatch.setenv("WEIGHTS_MIRROR", f"{server.url}/")
        yield server


def test_a_file_is_downloaded_once_from_the_mirror(cache, mirror, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    weights = hosted()
    put_on_host(tmp_path / "host", weights)
    path = fetch(weights)
    assert path == cached_path(weights) == cache / weights.file
    assert path.read_bytes() == CONTENT
    assert fetch(weights) == path
    assert mirror.requests == [f"/models/{weights.file}"]
    assert left_in(cache) == [weights.file]
    assert path.stat().st_mode & 0o444 == 0o444  # for other users of a shared cache
    assert caplog.text.count(f"downloading {mirror.url}/models/{weights.file} to {path}") == 1


def test_another_file_is_refused_and_not_kept(cache, mirror, tmp_path):
    weights = hosted()
    put_on_host(tmp_path / "host", weights, CONTENT + b"!")
    digest = hashlib.sha256(CONTENT + b"!").hexdigest()[:8]
    message = refusal(weights)
    assert f"SHA-256 begins with {digest}, that of {NAME} with {weights.sha256}" in message
    assert left_in(cache) == []


def test_a_missing_file_is_named_with_a_way_out(cache, mirror):
    weights = hosted()
    message = refusal(weights)
    assert f"from {mirror.url}/models/{weights.file}: the host answers 404" in message
    assert f"get {weights.url} on another machine and put it at {cache / weights.file}" in message
    assert "WEIGHTS_MIRROR" in message
    assert left_in(cache) == []


def test_a_download_that_is_cut_short_is_not_kept(cache, monkeypatch):
    with dripping(START, b"", pause=0, ends=True) as address:
        monkeypatch.setenv("WEIGHTS_MIRROR", f"http://{address}")
        assert "cut short, or is another file" in refusal(hosted())
    assert left_in(cache) == []


def test_a_host_that_stops_sending_is_given_up(cache, monkeypatch):
    monkeypatch.setattr(download, "SECONDS", 0.2)
    with dripping(START, b"", pause=60) as address:
        monkeypatch.setenv("WEIGHTS_MIRROR", f"http://{address}")
        assert "no answer for 0.2 s" in refusal(hosted())
    assert left_in(cache) == []
    assert socket.getdefaulttimeout() is None


def test_an_error_of_tls_is_of_the_network(cache, monkeypatch):
    """Its number is none of the system's, though 1 would be a lack of permission."""

    def refuse(*arguments, **named):
        raise ssl.SSLError(1, "decryption failed")

    monkeypatch.setattr("torch.hub.urlopen", refuse)
    assert "can't be downloaded from" in refusal(hosted())


@pytest.mark.parametrize("start", [b"", b"nonsense\r\n\r\n", b"HTTP/1.0 503 Busy\r\n\r\n"])
def test_a_host_that_speaks_no_http_is_reported(start, cache, monkeypatch):
    with dripping(start, b"", pause=0, ends=True) as address:
        monkeypatch.setenv("WEIGHTS_MIRROR", f"http://{address}")
        assert "can't be downloaded from" in refusal(hosted())
    assert left_in(cache) == []


def test_a_full_disk_is_reported(cache, mirror, tmp_path):
    weights = hosted()
    put_on_host(tmp_path / "host", weights)
    with limit_file_size(100_000):
        message = refusal(weights)
    assert f"can't be saved in {cache}: File too large; set TORCH_HOME" in message
    assert left_in(cache) == []


def test_a_cache_that_cannot_be_written_is_reported(cache, mirror, tmp_path, monkeypatch):
    weights = hosted()
    put_on_host(tmp_path / "host", weights)
    with without_root():
        message = refusal(weights)
    assert f"can't be saved in {cache}: Permission denied; set TORCH_HOME" in message
    (tmp_path / "cache").write_text("a file")
    assert "can't be saved" in refusal(weights)


def test_a_file_in_a_cache_that_cannot_be_written_is_used(cache, monkeypatch):
    weights = hosted()
    cache.mkdir(parents=True)
    (cache / weights.file).write_bytes(CONTENT)
    monkeypatch.setattr(download, "_alone_in", None)  # nothing is locked, made or written
    monkeypatch.setattr(download, "_download", None)
    cache.chmod(0o555)
    try:
        assert fetch(weights) == cache / weights.file
    finally:
        cache.chmod(0o755)


def test_without_network_the_file_can_be_put_there(cache, monkeypatch):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # and does not listen
        monkeypatch.setenv("WEIGHTS_MIRROR", f"http://127.0.0.1:{silent.getsockname()[1]}")
        weights = hosted()
        message = refusal(weights)
    assert "Connection refused" in message
    assert f"get {weights.url} on another machine and put it at {cache / weights.file}" in message
    (cache / weights.file).write_bytes(CONTENT)
    assert fetch(weights) == cache / weights.file


def test_an_unknown_host_is_reported(cache, monkeypatch):
    def fail(*arguments, **how):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    weights = hosted()
    message = refusal(weights)
    assert f"can't be downloaded from {weights.url}: Name or service not known" in message


@pytest.mark.parametrize(
    "mirror", ["ftp://x", "mirror.example", "file:///x", "http://u:p@x", " ", "http://x/é"]
)
def test_a_mirror_must_be_an_address(mirror, cache, monkeypatch):
    monkeypatch.setenv("WEIGHTS_MIRROR", mirror)
    assert "must be an address such as https://mirror.example" in refusal(hosted())


def test_a_damaged_file_in_the_cache_is_refused_and_left_alone(cache, mirror):
    weights = hosted()
    cache.mkdir(parents=True)
    (cache / weights.file).write_bytes(CONTENT[:-1])
    message = refusal(weights)
    assert message.startswith(f"{cache / weights.file}: damaged: its SHA-256 begins with")
    assert "Delete it to download it again" in message
    assert (cache / weights.file).read_bytes() == CONTENT[:-1]
    assert not mirror.requests


def test_a_folder_in_place_of_the_file_is_reported(cache):
    weights = hosted()
    (cache / weights.file).mkdir(parents=True)
    assert refusal(weights) == f"{cache / weights.file}: can't be read: Is a directory"


def test_several_at_once_download_it_only_once(cache, mirror, tmp_path, monkeypatch):
    weights = hosted()
    put_on_host(tmp_path / "host", weights)
    real = torch.hub.download_url_to_file
    running = []

    def slowly(*arguments, **how):
        running.append(1)
        assert len(running) == 1
        time.sleep(0.3)
        real(*arguments, **how)
        running.pop()

    monkeypatch.setattr(torch.hub, "download_url_to_file", slowly)
    paths = []
    threads = [threading.Thread(target=lambda: paths.append(fetch(weights))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert paths == [cache / weights.file] * 4
    assert len(mirror.requests) == 1


def test_without_locks_every_process_downloads(cache, mirror, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    weights = hosted()
    put_on_host(tmp_path / "host", weights)
    threads = [threading.Thread(target=fetch, args=(weights,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (cache / weights.file).read_bytes() == CONTENT
    assert left_in(cache) == [weights.file]


def test_what_killed_downloads_left_is_deleted_after_a_day(cache, mirror, tmp_path):
    weights = hosted()
    put_on_host(tmp_path / "host", weights)
    for name, age in ((".download-old", 2 * 86400), (".download-new", 60)):
        (cache / name).mkdir(parents=True)
        (cache / name / "part").write_bytes(b"x")
        os.utime(cache / name, (time.time() - age,) * 2)
    (cache / "other-12345678.pth").write_bytes(b"x")
    fetch(weights)
    assert left_in(cache) == sorted([".download-new", "other-12345678.pth", "part", weights.file])


def test_an_interrupted_download_leaves_nothing(tmp_path):
    cache = tmp_path / "cache/hub/checkpoints"
    with dripping(START, b"more", pause=0.05) as address:
        environ = {"WEIGHTS_MIRROR": f"http://{address}", "TORCH_HOME": str(tmp_path / "cache")}
        with Command("-m", "util_scripts.weights", NAME, environ=environ) as command:
            command.wait_until(lambda: any(cache.glob(".download-*/*")))
            command.process.send_signal(signal.SIGINT)
            finished = command.finish()
    assert finished.status == 128 + signal.SIGINT
    assert "Traceback" not in finished.text
    assert finished.stderr.count("\n") == 2  # what is downloaded, and "interrupted"
    assert left_in(cache) == []


class Attack:
    """Pickled, it makes a file when it is loaded without care."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


COMMANDS = {
    inspect_checkpoint: [NAME],
    predict_video: ["{root}/x.mp4", "--checkpoint", NAME],
    export_model: ["--checkpoint", NAME, "--pt2", "{root}/x.pt2"],
    extract_features: ["{root}/i.json", "{root}", "{root}/x.npz", "--checkpoint", NAME],
    weights_command: [NAME],
}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)
def test_no_command_loads_what_does_not_match(command, cache, mirror, tmp_path):
    torch.save({"state_dict": Attack(tmp_path / "attacked")}, tmp_path / "w.pth")
    put_on_host(tmp_path / "host", R3D_18, (tmp_path / "w.pth").read_bytes())
    (tmp_path / "x.mp4").write_bytes(b"video")
    with pytest.raises(UserError, match=f"{NAME}: the download from {mirror.url}/models/r3d_18-"):
        command.main([word.format(root=tmp_path) for word in COMMANDS[command]])
    assert left_in(cache) == []
    assert not (tmp_path / "attacked").exists()


@pytest.mark.parametrize("flags", [["--pretrain_path"], ["--no_train", "--resume_path"]])
def test_main_stops_before_it_starts(flags, cache, mirror, tmp_path, capsys):
    paths = ["--annotation_path", "i.json", "--video_path", "v", "--result_path", "r"]
    status = main.main(["--root_path", str(tmp_path), *paths, *flags, NAME, "--no_cuda"])
    assert status == 2
    assert "the host answers 404" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()
    assert len(mirror.requests) == 1


def test_a_checkpoint_by_name_is_read_from_the_cache(cache, mirror, tmp_path, monkeypatch):
    torch.save({"fc.weight": torch.zeros(400, 2)}, tmp_path / "w.pth")
    content = (tmp_path / "w.pth").read_bytes()
    weights = replace(hosted(content), key="small")
    monkeypatch.setitem(WEIGHTS, weights.name, weights)
    put_on_host(tmp_path / "host", weights, content)
    checkpoint = load_checkpoint(Path("torchvision:small"))
    assert checkpoint.path == cache / weights.file
    assert checkpoint.class_names[:2] == ["abseiling", "air drumming"]
    assert len(checkpoint.class_names) == 400

    elsewhere = tmp_path / weights.file  # downloaded by hand
    elsewhere.write_bytes(content)
    assert load_checkpoint(elsewhere).class_names == checkpoint.class_names


def test_fine_tuning_takes_clips_as_long_as_those_of_hosted_weights(
    cache, mirror, tmp_path, monkeypatch
):
    make_dataset(tmp_path, train=2, val=1)
    assert small_run(tmp_path, "--n_epochs", "1", "--no_val", result="pre") == 0
    tensors = torch.load(tmp_path / "pre/save_1.pth", weights_only=True)["state_dict"]
    torch.save(tensors, tmp_path / "w.pth")
    content = (tmp_path / "w.pth").read_bytes()
    weights = replace(hosted(content), key="small", n_frames=4)
    monkeypatch.setitem(WEIGHTS, weights.name, weights)
    put_on_host(tmp_path / "host", weights, content)
    flags = small_flags(tmp_path, "--pretrain_path", weights.name, "--n_epochs", "1", "--no_val")
    given = flags.index("--sample_duration")
    assert main.main([*flags[:given], *flags[given + 2 :]]) == 0
    assert json.loads((tmp_path / "res/opts.json").read_text())["sample_duration"] == 4
    assert main.main([*flags, "--result_path", str(tmp_path / "given")]) == 0
    assert json.loads((tmp_path / "given/opts.json").read_text())["sample_duration"] == 8


def test_a_run_that_continues_needs_no_weights_to_start_from(
    cache, mirror, tmp_path, monkeypatch, capsys
):
    make_dataset(tmp_path, train=2, val=1)
    assert small_run(tmp_path, "--n_epochs", "1", "--no_val") == 0
    weights = hosted()
    monkeypatch.setitem(WEIGHTS, weights.name, weights)
    flags = ("--pretrain_path", weights.name, "--no_val", "--resume_path")
    assert small_run(tmp_path, *flags, "auto") == 0
    assert small_run(tmp_path, *flags, "res/save_1.pth", result="other") == 0
    assert mirror.requests == []
    for path in (tmp_path / "res").glob("*.pth"):
        path.write_bytes(b"damaged")
    assert small_run(tmp_path, *flags, "auto") == 2
    assert "the host answers 404" in capsys.readouterr().err


def test_a_file_with_the_name_of_hosted_weights_but_other_content(cache, tmp_path, caplog):
    path = tmp_path / R3D_18.file
    torch.save({"fc.weight": torch.zeros(400, 2)}, path)
    assert load_checkpoint(path).class_names is None
    assert f"that of {NAME} with b3b3357e" in caplog.text
