"""Hosted checkpoints: names for --pretrain_path and --checkpoint, addresses, hashes, and what is
published about them. Does not import torch."""

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from errors import UserError
from models.namings import NAMINGS

HOW_TO_LIST = "python -m util_scripts.weights lists all"


@dataclass(frozen=True)
class Origin:
    """Where a group of checkpoints comes from, and under which terms."""

    host: str  # in front of the colon of a name
    address: str  # of the folder with the files
    licence: str
    made_by: str
    terms: str = ""  # further ones, after the licence


@dataclass(frozen=True)
class Paper:
    """A publication to cite."""

    text: str
    url: str

    def __str__(self) -> str:
        return f"{self.text}, {self.url}"


@dataclass(frozen=True)
class HostedWeights:
    """One hosted checkpoint."""

    origin: Origin
    key: str  # after the colon of its name
    file: str  # its name at the host, with the start of the SHA-256 before the suffix
    model: str
    arch: str  # family and depth here
    naming: str  # a key of NAMINGS, which has the preprocessing and the frame rate
    trained_on: str
    n_classes: int  # 0: without a head
    n_frames: int  # per clip, where its accuracy was measured; 0: trained on images
    accuracy: str  # top-1 in percent as published, with the views it was measured with
    cite: Paper
    megabytes: int | None = None  # millions of bytes
    categories: str = ""  # the torchvision weights whose metadata has the class names

    @property
    def name(self) -> str:
        return f"{self.origin.host}:{self.key}"

    @property
    def url(self) -> str:
        return f"{self.origin.address}/{self.file}"

    @property
    def sha256(self) -> str:
        """The first hexadecimal digits of the file's SHA-256."""
        return self.file.rpartition(".")[0].rpartition("-")[2]

    @property
    def options(self) -> dict[str, Any]:
        """What their tensors do not show, by the names of the flags."""
        found = dict(NAMINGS[self.naming].options)
        return found | ({"sample_duration": self.n_frames} if self.n_frames else {})

    def describe_input(self) -> str:
        """Return the frames, pixels and frame rate that the weights were trained with."""
        options = self.options
        if not self.n_frames:
            return "images, inflated to clips of any length"
        rate = options.get("frame_rate")
        height, width = options["eval_resize"]
        return (
            f"{self.n_frames} frames of {options['sample_size']} x {options['sample_size']} from "
            f"{height} x {width} pixels, "
            + (f"{rate:g} frames per second" if rate else "frame rate not stated")
        )

    def describe_accuracy(self) -> str:
        return self.accuracy or "accuracy not published"

    def class_names(self) -> tuple[str, ...] | None:
        """Return the names of the outputs in order; None if they are not published."""
        if not self.categories:
            return None
        from torchvision.models import get_weight

        return tuple(get_weight(self.categories).meta["categories"])


TORCHVISION = Origin(
    "torchvision",
    "https://download.pytorch.org/models",
    "BSD-3-Clause for the code",
    "torchvision",
    "; the weights may be under terms of the data set they were trained on",
)
IG65M = Origin(
    "ig65m",
    "https://github.com/moabitcoin/ig65m-pytorch/releases/download/v1.0.0",
    "MIT; converted from VMZ, Apache-2.0",
    "moabitcoin/ig65m-pytorch",
)
XDC = Origin(
    "xdc",
    "https://github.com/HumamAlwassel/XDC/releases/download/model_weights",
    "MIT",
    "HumamAlwassel/XDC",
)

R2PLUS1D = Paper("Tran et al., CVPR 2018", "https://arxiv.org/abs/1711.11248")
RESNET = Paper("He et al., CVPR 2016", "https://arxiv.org/abs/1512.03385")
WIDE_RESNET = Paper("Zagoruyko and Komodakis, BMVC 2016", "https://arxiv.org/abs/1605.07146")
RESNEXT = Paper("Xie et al., CVPR 2017", "https://arxiv.org/abs/1611.05431")
GHADIYARAM = Paper("Ghadiyaram et al., CVPR 2019", "https://arxiv.org/abs/1905.00561")
ALWASSEL = Paper("Alwassel et al., NeurIPS 2020", "https://arxiv.org/abs/1911.12667")

# The order of the classes is alphabetical, and that of all Kinetics-400 files in this table.
KINETICS_400 = "R3D_18_Weights.KINETICS400_V1"


def _torchvision_videos() -> Iterator[HostedWeights]:
    rows = (
        ("r3d_18", "b3b3357e", "R3D-18", "resnet-18", "63.2", 134),
        ("r2plus1d_18", "91a641e6", "R(2+1)D-18", "resnet2p1d-18", "67.5", 126),
        ("mc3_18", "a90a0ba3", "MC3-18", "resnet-18", "64.0", 47),
    )
    for key, digest, model, arch, top1, megabytes in rows:
        yield HostedWeights(
            origin=TORCHVISION,
            key=key,
            file=f"{key}-{digest}.pth",
            model=model,
            arch=arch,
            naming="torchvision_r2plus1d" if "2p1d" in arch else "torchvision_video",
            trained_on="Kinetics-400",
            n_classes=400,
            n_frames=16,
            accuracy=f"{top1} on Kinetics-400, 5 clips of 16 frames per video",
            cite=R2PLUS1D,
            megabytes=megabytes,
            categories=KINETICS_400,
        )


def _torchvision_images() -> Iterator[HostedWeights]:
    rows = (
        ("resnet18", "f37072fd", "ResNet18", 1, "69.8", 47),
        ("resnet34", "b627a593", "ResNet34", 1, "73.3", 87),
        ("resnet50", "0676ba61", "ResNet50", 1, "76.1", 103),
        ("resnet50", "11ad3fa6", "ResNet50", 2, "80.9", 103),
        ("resnet101", "63fe2227", "ResNet101", 1, "77.4", 179),
        ("resnet101", "cd907fc2", "ResNet101", 2, "81.9", 179),
        ("resnet152", "394f9c45", "ResNet152", 1, "78.3", 242),
        ("resnet152", "f82ba261", "ResNet152", 2, "82.3", 242),
        ("resnext50_32x4d", "7cdf4587", "ResNeXt50_32X4D", 1, "77.6", 100),
        ("resnext50_32x4d", "1a0047aa", "ResNeXt50_32X4D", 2, "81.2", 100),
        ("resnext101_64x4d", "173b62eb", "ResNeXt101_64X4D", 1, "83.2", 335),
        ("wide_resnet50_2", "95faca4d", "Wide_ResNet50_2", 1, "78.5", 138),
        ("wide_resnet50_2", "9ba9bcbe", "Wide_ResNet50_2", 2, "81.6", 276),
        ("wide_resnet101_2", "32ee1156", "Wide_ResNet101_2", 1, "78.8", 255),
        ("wide_resnet101_2", "d733dc28", "Wide_ResNet101_2", 2, "82.5", 508),
    )
    families = {"resnet": RESNET, "resnext": RESNEXT, "wide_resnet": WIDE_RESNET}
    for key, digest, model, version, top1, megabytes in rows:
        family, depth = re.findall(r"^(\D+)(\d+)", key)[0]
        yield HostedWeights(
            origin=TORCHVISION,
            key=key if version == 1 else f"{key}_v{version}",
            file=f"{key}-{digest}.pth",
            model=f"{model} (2D)",
            arch=f"{family.replace('_', '')}-{depth}",
            naming="torchvision_2d",
            trained_on="ImageNet",
            n_classes=1000,
            n_frames=0,
            accuracy=f"{top1} on ImageNet, one centre crop per image",
            cite=families[family],
            megabytes=megabytes,
            categories=f"{model}_Weights.IMAGENET1K_V{version}",
        )


def _ig65m() -> Iterator[HostedWeights]:
    rows = (
        (8, "ig65m", "clip8_ig65m_from_scratch-9bae36ae", 359, ""),
        (32, "ig65m", "clip32_ig65m_from_scratch-449a7af9", 487, ""),
        (8, "kinetics", "clip8_ft_kinetics_from_ig65m-0aa0550b", 400, "74.9"),
        (32, "kinetics", "clip32_ft_kinetics_from_ig65m-ade133f1", 400, "80.0"),
    )
    for n_frames, data, file, n_classes, top1 in rows:
        is_finetuned = data == "kinetics"
        yield HostedWeights(
            origin=IG65M,
            key=f"r2plus1d_34_{n_frames}_{data}",
            file=f"r2plus1d_34_{file}.pth",
            model="R(2+1)D-34",
            arch="resnet2p1d-34",
            naming="vmz_r2plus1d",
            trained_on="IG-65M, Kinetics-400" if is_finetuned else "IG-65M",
            n_classes=n_classes,
            n_frames=n_frames,
            accuracy=f"{top1} on Kinetics-400, per video; of the file it was converted from, views "
            f"of {n_frames} frames, their number not stated"
            if is_finetuned
            else "",
            cite=GHADIYARAM,
            megabytes=255 if (n_frames, data) == (32, "kinetics") else None,
            categories=KINETICS_400 if is_finetuned else "",
        )


def _xdc() -> Iterator[HostedWeights]:
    rows = (
        ("xdc_ig65m_kinetics", "f24f6ffb", "IG-Kinetics, self-supervised", "95.5", "68.9"),
        ("xdc_ig65m_random", "189d23f4", "IG-Random, self-supervised", "94.6", "66.5"),
        ("xdc_audioset", "f29ffe8f", "AudioSet, self-supervised", "93.0", "63.7"),
        ("fs_kinetics", "622bdad9", "Kinetics", "94.2", "65.1"),
        ("fs_imagenet", "ff446670", "ImageNet", "84.0", "48.1"),
    )
    for key, digest, data, ucf101, hmdb51 in rows:
        yield HostedWeights(
            origin=XDC,
            key=f"r2plus1d_18_{key}",
            file=f"r2plus1d_18_{key}-{digest}.pth",
            model="R(2+1)D-18",
            arch="resnet2p1d-18",
            naming="vmz_r2plus1d",
            trained_on=data,
            n_classes=0,
            n_frames=32,
            accuracy=f"{ucf101} on UCF-101 and {hmdb51} on HMDB-51 after fine-tuning all layers, "
            "per video, mean of the three splits; views not stated",
            cite=ALWASSEL,
        )


WEIGHTS: dict[str, HostedWeights] = {
    row.name: row
    for rows in (_torchvision_videos(), _torchvision_images(), _ig65m(), _xdc())
    for row in rows
}

HOSTS = tuple(dict.fromkeys(row.origin.host for row in WEIGHTS.values()))


def is_weights_name(path: Path) -> bool:
    """Whether `path` is no path but the name of hosted weights, known or not."""
    host, colon, _ = str(path).partition(":")
    return bool(colon) and host in HOSTS


def find_weights(path: Path) -> HostedWeights | None:
    """Return the hosted weights that `path` names; None if it is the path of a file.

    Raises UserError for an unknown name of a known host, with the names that exist.
    """
    if not is_weights_name(path):
        return None
    if (found := WEIGHTS.get(str(path))) is None:
        host = str(path).partition(":")[0]
        names = [name for name, row in WEIGHTS.items() if row.origin.host == host]
        closest = difflib.get_close_matches(str(path), names, n=len(names), cutoff=0)
        raise UserError(f"{path}: no such weights; {host} has {', '.join(closest)} ({HOW_TO_LIST})")
    return found


def weights_of_file(name: str) -> HostedWeights | None:
    """Return the hosted weights whose file has this name at its host."""
    return next((row for row in WEIGHTS.values() if row.file == name), None)
