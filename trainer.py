"""A model with everything that changes while it is trained, and one step of that."""

import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import MultiStepLR, ReduceLROnPlateau

from datasets.video_dataset import ClipBatch
from engine.checkpoint import Checkpoint, load_schedule, schedule_of
from engine.checkpoint_fields import Best
from engine.device import Device, is_out_of_memory
from engine.distributed import ALONE, World, noticing_the_lost
from engine.optimizer_state import load_optimizer
from errors import UserError
from model import dry_run, frozen_batch_norms, wrap_for_distributed
from opts import Options

Scheduler = MultiStepLR | ReduceLROnPlateau

log = logging.getLogger(__name__)

NOBODY = -100  # the target of a clip that fills a gap
ONE_VALUE = "more than 1 value per channel"  # of torch's complaint about batch norm
OUT_OF_MEMORY = (
    "out of memory: half the --batch_size with twice the --accumulate makes the same steps"
)


class StepSums(NamedTuple):
    """What a step tells of its own clips; on the device, so that nothing waits for it."""

    loss: Tensor
    hits: Tensor


@dataclass
class Trainer:
    """A model and everything that changes with it while it is trained."""

    model: nn.Module
    optimizer: torch.optim.SGD
    scheduler: Scheduler
    scaler: torch.amp.GradScaler
    device: Device
    best: Best | None = None  # {"epoch", "video_accuracy"} of best.pth
    kept_statistics: Sequence[nn.Module] = ()  # batch norms that stay in evaluation mode
    world: World = ALONE
    clip_grad: float = 0.0
    class_weights: Tensor | None = None  # (K,) on the device: how much a class's clips count
    # What steps call: the model, or its wrapper that adds up gradients over processes, or its head
    # alone; and how a batch's clips become its input.
    forward: nn.Module | None = None
    inputs: Callable[[Tensor], Tensor] | None = None
    blank: Tensor | None = None  # clips for a process that has none; of 2, as batch norm wants
    _is_within: bool = False

    @property
    def is_within_step(self) -> bool:
        """Whether there are gradients of batches that no update has used yet."""
        return self._is_within

    def begin_epoch(self) -> None:
        """Training mode, but for the batch norms whose statistics are kept; no old gradients."""
        self._is_within = False
        self.model.train()
        for module in self.kept_statistics:
            module.eval()

    def takes_lone_clips(self) -> bool:
        """Whether a batch of one clip can be trained on: not where it leaves a batch norm a single
        value per channel."""
        assert self.blank is not None
        self.begin_epoch()
        try:
            dry_run(self.model, (1, *self.blank.shape[1:]))
        except ValueError as error:
            if ONE_VALUE not in str(error):
                raise
            return False
        return True

    def step(self, batch: ClipBatch, *, n_clips: float, ends: bool = True) -> StepSums:
        """Forward and backward; an update where the step `ends`, as one of no clips must.

        The loss is the mean over `n_clips`, those of all processes and of all batches of the
        step; `class_weights`, whose mean over the training videos is 1, weigh its terms.
        """
        if not self._is_within:
            self.optimizer.zero_grad(set_to_none=True)
        self._is_within = not ends
        if not len(batch.labels) and self.world.size == 1:
            self._update()  # with what the batches before it gave
            return StepSums(*torch.zeros(2))
        clips, targets = self._whole(batch)
        forward = self.forward or self.model
        with _explained(), noticing_the_lost(), self._synchronised(ends):
            with self.device.autocast():
                logits = forward((self.inputs or self.device.model_input)(clips))  # (B, K)
            loss = F.cross_entropy(
                logits.float(),
                targets,
                weight=self.class_weights,
                reduction="sum",
                ignore_index=NOBODY,
            )
            self.scaler.scale(loss * (self.world.size / max(n_clips, 1))).backward()
            if ends:
                self._update()
        hits = (logits.detach().argmax(dim=1) == targets).sum()
        return StepSums(loss.detach(), hits)

    def _whole(self, batch: ClipBatch) -> tuple[Tensor, Tensor]:
        """A batch's clips and targets; of a process that has none this time, a blank clip that
        nobody counts, so that the others need not wait for its gradients."""
        if len(batch.labels):
            return batch.clips, batch.labels.to(self.device.device, non_blocking=True)
        assert self.blank is not None
        return self.blank, torch.full((2,), NOBODY, device=self.device.device)

    def _synchronised(self, ends: bool) -> Any:
        if isinstance(self.forward, DistributedDataParallel) and not ends:
            return self.forward.no_sync()
        return nullcontext()

    def _update(self) -> None:
        if self.clip_grad:
            self.scaler.unscale_(self.optimizer)
            trained = (p for group in self.optimizer.param_groups for p in group["params"])
            nn.utils.clip_grad_norm_(trained, self.clip_grad)
        is_first = self.scaler.is_enabled() and not self.optimizer.state
        scale = self.scaler.get_scale() if is_first else 0.0
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if is_first and self.scaler.get_scale() < scale:
            # Skipped as the gradients overflowed, but fused SGD has made momenta: uninitialised.
            self.optimizer.state.clear()

    def learning_rate(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of it: tensors and plain values, the model's names as built."""
        scheduler = self.scheduler.state_dict()
        if "milestones" in scheduler:
            scheduler["milestones"] = dict(scheduler["milestones"])  # a Counter is no plain value
        return {
            "state_dict": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": scheduler,
            "scaler": self.scaler.state_dict(),
            "best": self.best,
            "versions": {"torch": str(torch.__version__)},
        }

    def resume(self, checkpoint: Checkpoint) -> None:
        """Take over the optimiser and schedule of a file, if it holds them.

        Raises UserError if they don't fit.
        """
        if checkpoint.optimizer is None or checkpoint.scheduler is None:
            log.warning("%s: holds weights only: the optimiser starts afresh", checkpoint.path)
            return
        try:
            load_optimizer(
                self.optimizer,
                checkpoint.optimizer,
                names=[n for n, p in self.model.named_parameters() if p.requires_grad],
                place=f"{checkpoint.path}: optimizer",
            )
        except ValueError as error:
            raise UserError(f"{checkpoint.path}: {error}; resume {_as_saved(checkpoint)}") from None
        state = dict(checkpoint.scheduler)
        own, saved = schedule_of(self.scheduler.state_dict()), schedule_of(state)
        if own != saved:
            raise UserError(
                f"--lr_scheduler {own}: {checkpoint.path} was trained with {saved}; resume with "
                "that, or begin anew from its weights with --pretrain_path and --keep_head"
            )
        try:
            load_schedule(self.scheduler, state)
        except ValueError as error:
            raise UserError(f"{checkpoint.path}: {error}") from None
        if checkpoint.extras.scaler is not None:
            self.scaler.load_state_dict(dict(checkpoint.extras.scaler))
        self.best = checkpoint.best
        if not checkpoint.is_ours and isinstance(self.scheduler, MultiStepLR):
            with warnings.catch_warnings():  # it expects an optimiser step of this process first
                warnings.simplefilter("ignore", UserWarning)
                self.scheduler.step()


def _as_saved(checkpoint: Checkpoint) -> str:
    """Which --ft_begin_module a file's optimiser belongs to, where the file tells."""
    begin = checkpoint.options.get("ft_begin_module")
    if begin is None:
        return "with the --ft_begin_module it was saved with"
    return f"with --ft_begin_module {begin}" if begin else "without --ft_begin_module"


@contextmanager
def _explained() -> Iterator[None]:
    """What torch complains of, where the user can do something about it."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(OUT_OF_MEMORY) from None
    except ValueError as error:
        if ONE_VALUE not in str(error):
            raise
        raise UserError(
            "a batch of one clip, as others could not be read, leaves batch norm a single value "
            "at this --sample_size and --sample_duration: choose a larger --batch_size"
        ) from None


# What a resumed run takes from its file: the flag and its name in the optimiser or the schedule.
KEPT = {
    "learning_rate": "initial_lr",
    "momentum": "momentum",
    "dampening": "dampening",
    "weight_decay": "weight_decay",
    "nesterov": "nesterov",
    "multistep_milestones": "milestones",
    "plateau_patience": "patience",
}


def _tell_kept(options: Options, checkpoint: Checkpoint, trainer: "Trainer") -> None:
    """Say which flags the state of the file overrules."""
    if checkpoint.optimizer is None or checkpoint.scheduler is None:
        return
    state = trainer.scheduler.state_dict() | trainer.optimizer.param_groups[0]
    for name in sorted(KEPT.keys() & options.given):
        given, kept = getattr(options, name), state.get(KEPT[name])
        if name == "multistep_milestones" and kept is not None:
            kept = tuple(sorted(kept.elements()))
            given = tuple(sorted(given))
        if kept is not None and kept != given:
            hint = "; --overwrite_milestones applies them" if "milestones" in name else ""
            log.warning("--%s %s: the resumed run goes on with %s%s", name, given, kept, hint)


def build_trainer(
    options: Options,
    model: nn.Module,
    device: Device,
    checkpoint: Checkpoint | None,
    world: World = ALONE,
    *,
    class_weights: np.ndarray | None = None,
) -> Trainer:
    """SGD over the trained parameters with the schedule of the flags, resumed if asked."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    # Fine-tuning gets a group per parameter, as the original's: its resume expects the same.
    grouped = bool(options.ft_begin_module)
    optimizer = torch.optim.SGD(
        [{"params": [p]} for p in parameters] if grouped else parameters,
        lr=options.learning_rate,
        momentum=options.momentum,
        dampening=options.dampening,
        weight_decay=options.weight_decay,
        nesterov=options.nesterov,
        fused=True,
    )
    scheduler: Scheduler
    if options.lr_scheduler == "plateau":
        scheduler = ReduceLROnPlateau(optimizer, "min", patience=options.plateau_patience)
    else:
        scheduler = MultiStepLR(optimizer, options.multistep_milestones)
    trainer = Trainer(model, optimizer, scheduler, device.grad_scaler(), device)
    trainer.world, trainer.clip_grad = world, options.clip_grad
    if class_weights is not None:
        trainer.class_weights = torch.tensor(
            class_weights, dtype=torch.float32, device=device.device
        )
    if checkpoint is not None:
        trainer.resume(checkpoint)
        if options.overwrite_milestones and isinstance(scheduler, MultiStepLR):
            scheduler.milestones = Counter(options.multistep_milestones)
        _tell_kept(options, checkpoint, trainer)
    if options.compile:
        model.compile()
    trainer.forward = wrap_for_distributed(model, device, world, sync_bn=options.batchnorm_sync)
    if options.freeze_bn:  # now that synchronised batch norms are in the places of plain ones
        trainer.kept_statistics = frozen_batch_norms(model)
    shape = (options.sample_duration, options.sample_size, options.sample_size)
    trainer.blank = torch.zeros((2, options.n_input_channels, *shape), dtype=torch.uint8)
    return trainer
