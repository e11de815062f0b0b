"""Build the loaders of training, validation and inference from the options."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch

from datasets.activitynet import UntrimmedIndex, select_parts, select_whole
from datasets.frame_readers import (
    FrameSource,
    Hdf5Videos,
    JpgFolder,
    VideoFiles,
    decode_with_accimage,
    decode_with_simplejpeg,
    default_decoder,
    require_accimage,
)
from datasets.hdf5 import FLOW, require_h5py
from datasets.index import Index, canonical_subset
from datasets.records import VideoRecord
from datasets.selection import select_videos
from datasets.video_dataset import (
    Batches,
    ClipLoader,
    InferenceWindows,
    OrderedBatches,
    ShuffledBatches,
    SpatialTransform,
    TemporalTransform,
    VideoDataset,
    WindowBatches,
)
from datasets.workers import usable_workers
from engine.distributed import SINGLE_PROCESS, World
from media.ffmpeg import find_ffmpeg
from opts import Options
from spatial_transforms import EvalView, TrainView
from temporal_transforms import center_window, even_windows, random_window
from utils.text import first_few

TRAIN_WINDOWS = {"random": random_window, "center": center_window}

log = logging.getLogger(__name__)


def build_train_loader(
    options: Options, index: Index, world: World = SINGLE_PROCESS
) -> ClipLoader[ShuffledBatches]:
    """Build a loader with one clip per training video and epoch, in random order."""
    records = _usable_records(options, index, "training")
    spatial = TrainView(
        options.sample_size,
        options.train_crop,
        min_scale=options.train_crop_min_scale,
        min_ratio=options.train_crop_min_ratio,
        hflip=not options.no_hflip,
        jitter=options.colorjitter,
        rand_augment=options.rand_augment,
        erasing=options.random_erasing,
        is_flow=options.input_type == "flow",
        resize=_eval_resize(options),
        antialias=not options.no_antialias,
    )
    temporal = partial(TRAIN_WINDOWS[options.train_t_crop], size=options.sample_duration)
    batches = ShuffledBatches(
        len(records),
        options.batch_size * world.n_nodes,  # the flag is per node
        options.manual_seed,
        rank=world.rank,
        size=world.size,
        labels=[r.label for r in records] if options.sampler == "balanced" else None,
    )
    return _loader(options, _dataset(options, records, temporal, spatial), batches, world)


def build_val_loader(
    options: Options, index: Index, world: World = SINGLE_PROCESS
) -> ClipLoader[OrderedBatches]:
    """Build a loader with `n_val_samples` clips per validation video; batches are as large as in
    training."""
    records = _usable_records(options, index, "validation")
    temporal = partial(even_windows, size=options.sample_duration, n_samples=options.n_val_samples)
    dataset = _dataset(options, records, temporal, build_eval_view(options))
    n_clips = options.batch_size // world.local_size
    videos_per_batch = max(1, n_clips // options.n_val_samples)
    batches = OrderedBatches(world.share(len(records)), videos_per_batch)
    return _loader(options, dataset, batches, world)


def build_inference_loader(
    options: Options, index: Index, world: World = SINGLE_PROCESS
) -> ClipLoader[WindowBatches]:
    """Build a loader with every window of each video of --inference_subset, in order."""
    dataset = build_window_dataset(options, index, canonical_subset(options.inference_subset))
    windows, views = dataset.temporal, dataset.spatial
    assert isinstance(windows, InferenceWindows)
    assert isinstance(views, EvalView)
    counts = {
        video: windows.count(len(dataset.kept_frames(video)))
        for video in world.share(len(dataset.records))
    }
    # Whole frames differ in width between videos, so they can't share a batch.
    is_whole = options.inference_crop == "nocrop"
    videos_per_batch = 1 if is_whole else options.inference_batch_size
    batches = WindowBatches(
        counts, videos_per_batch, clips_per_window=views.n_views, may_mix=not is_whole
    )
    return _loader(options, dataset, batches, world)


def build_window_dataset(options: Options, index: Index, subset: str) -> VideoDataset:
    """Build a dataset of the windows of inference."""
    records = _usable_records(options, index, subset, whole_videos=True)
    windows = InferenceWindows(
        options.sample_duration, options.window_stride, options.inference_clips
    )
    spatial = replace(
        build_eval_view(options),
        crop=options.inference_crop != "nocrop",
        crops=options.inference_crops,
        flip=options.inference_flip,
        is_flow=options.input_type == "flow",
    )
    return _dataset(options, records, windows, spatial)


def build_eval_view(options: Options) -> EvalView:
    """Build the transform of validation: the central square of each frame."""
    resize, antialias = _eval_resize(options), not options.no_antialias
    return EvalView(options.sample_size, resize=resize, antialias=antialias)


def _eval_resize(options: Options) -> tuple[int, ...]:
    return options.eval_resize if any(options.eval_resize) else ()


def _dataset(
    options: Options,
    records: Sequence[VideoRecord],
    temporal: TemporalTransform,
    spatial: SpatialTransform,
) -> VideoDataset:
    stride, seed = options.sample_t_stride, options.manual_seed
    source = _source(
        options,
        whole_frames=isinstance(spatial, EvalView),
        is_sequential=isinstance(temporal, InferenceWindows),
    )
    return VideoDataset(records, source, temporal, spatial, stride, seed)


def _source(options: Options, *, whole_frames: bool, is_sequential: bool) -> FrameSource:
    """Build the frame reader. `whole_frames`: frames are resized as a whole, to a known size;
    `is_sequential`: each video is read from the first frame to the last."""
    if options.accimage:
        require_accimage()
    decode = decode_with_accimage if options.accimage else default_decoder()
    if options.scaled_decode and whole_frames and decode is decode_with_simplejpeg:
        size = max(options.sample_size, *options.eval_resize)
        decode = partial(decode_with_simplejpeg, min_size=size)
    if options.file_type == "jpg":
        return JpgFolder(decode)
    if options.file_type == "video":
        find_ffmpeg()  # reports a missing ffmpeg here instead of in a worker
        return VideoFiles(decode, is_sequential)
    require_h5py()
    if options.input_type == "flow":
        return Hdf5Videos(decode, FLOW, channels=1)
    return Hdf5Videos(decode)


def _loader(
    options: Options, dataset: VideoDataset, batches: Batches, world: World
) -> ClipLoader[Batches]:
    # --n_threads is per node.
    n_workers = usable_workers(-(-options.n_threads // world.local_size))
    pin = torch.cuda.is_available() and not options.no_cuda
    skip = options.on_bad_video == "skip"
    return ClipLoader(dataset, batches, n_workers, skip_bad=skip, pin_memory=pin)


def _usable_records(
    options: Options, index: Index, subset: str, *, whole_videos: bool = False
) -> Sequence[VideoRecord]:
    """Select the videos of a subset that have frames; log the others."""
    if isinstance(index, UntrimmedIndex):
        select = select_whole if whole_videos else select_parts
        records, omitted = select(index, subset, options.video_path)
    else:
        records, omitted = select_videos(
            index, subset, options.video_path, file_type=options.file_type
        )
    log.info("%s: %d videos%s", subset, len(records), ", for inference" if whole_videos else "")
    if omitted:
        log.warning("%s: %d videos left out:", subset, len(omitted))
        for line in first_few([f"{video_id}: {reason}" for video_id, reason in omitted], 5):
            log.warning("  %s", line)
    return records
