"""Load a checkpoint as a classifier: the model, its classes, the form of its input."""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from datasets.activitynet import read_any_index
from datasets.frame_rate import describe_mismatch
from engine.checkpoint import Checkpoint, load_checkpoint
from engine.checkpoint_fields import check_names
from engine.class_names import check_class_names
from engine.device import Device
from engine.weights_check import odd_rank
from errors import UserError
from model import adopt_checkpoint_options, build_device, build_loaded_model
from opts import Options
from parsing import options_of
from utils.reading import read_text

NUMBERED = re.compile(r"(\d+)\s+(\S.*)")  # a line of UCF-101's classInd.txt

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Classifier:
    """A trained model, in evaluation mode on its device.

    `labels` name its first outputs; outputs without a name are left out of results. `options` hold
    the rest: sample_size, sample_duration, sample_t_stride, model, model_depth …
    """

    path: Path
    model: nn.Module
    labels: tuple[str, ...]
    options: Options
    device: Device
    checkpoint: Checkpoint

    def rate_mismatch(self, rate: float) -> str | None:
        """Say how videos of `rate` frames per second differ from those that the model expects, and
        what to do; None if they do not."""
        expected, stride = self.options.frame_rate, self.options.sample_t_stride
        remedy = f"videos of {expected:g} frames per second fit"
        return describe_mismatch(rate, expected, t_stride=stride, remedy=remedy)


def load_classifier(
    path: Path, *, labels: Path | None = None, flags: Mapping[str, Any] | None = None
) -> Classifier:
    """Load a checkpoint together with its class names and options.

    `flags`, by the names of `Options`, provide what the file does not hold, and `labels` is a file
    for read_labels. Raises UserError where the file cannot be used, or contradicts the flags or the
    labels.
    """
    checkpoint = load_checkpoint(path)
    options = _options(checkpoint, flags or {})
    model = build_loaded_model(options, checkpoint)
    device = build_device(options)
    names = _labels(checkpoint, labels, options.n_classes)
    return Classifier(path, device.place(model).eval(), names, options, device, checkpoint)


def _options(checkpoint: Checkpoint, flags: Mapping[str, Any]) -> Options:
    options = options_of({"resume_path": checkpoint.path} | dict(flags))
    identity = checkpoint.identity
    if identity is None:
        odd = odd_rank(checkpoint.shapes)
        raise UserError(f"{checkpoint.path}: its tensors are of no known model family{odd}")
    if identity.n_input_channels == 2:
        options = replace(options, input_type="flow")
    return adopt_checkpoint_options(options, checkpoint)


def _labels(checkpoint: Checkpoint, path: Path | None, n_classes: int) -> tuple[str, ...]:
    if path is not None:
        names = read_labels(path)
        check_class_names(checkpoint, names, path)
        check_names(names, n_classes, str(path))
    elif checkpoint.class_names is not None:
        names = tuple(checkpoint.class_names)
    else:
        log.warning("%s: holds no class names: give them with --labels", checkpoint.path)
        return tuple(f"class {number}" for number in range(n_classes))
    if len(names) < n_classes:
        log.warning("%d of %d outputs have no class name and are left out", n_classes - len(names),
                    n_classes)  # fmt: skip
    return names


def read_labels(path: Path) -> tuple[str, ...]:
    """Read class names, in the order of the outputs, from an index (.json) or the lines of a text
    file.

    Numbers of lines, as in UCF-101's classInd.txt, are removed. Raises UserError.
    """
    if path.suffix.lower() == ".json":
        return read_any_index(path).labels
    text = read_text(path, "list of labels")
    names = _unnumbered([line.strip() for line in text.splitlines() if line.strip()])
    if not names:
        raise UserError(f"{path}: holds no class names")
    return tuple(names)


def _unnumbered(lines: Sequence[str]) -> Sequence[str]:
    matches = [match for line in lines if (match := NUMBERED.fullmatch(line))]
    numbers = [int(match[1]) if len(match[1]) < 9 else -1 for match in matches]
    if len(matches) < len(lines) or not lines:
        return lines
    is_in_order = numbers == list(range(numbers[0], numbers[0] + len(lines))) and numbers[0] <= 1
    return [match[2] for match in matches] if is_in_order else lines
