"""Check the frame numbers of an index; used by main.py before a run and by check_dataset."""

FIRST_NUMBER = {"jpg": 1, "hdf5": 0, "video": 1}  # number of a video's first frame
UNCOUNTED = "the index has no frame numbers"


def segment_fault(
    segment: tuple[int, int] | None, file_type: str, n_frames: int | None = None
) -> str | None:
    """Explain why a segment, [first frame, last frame + 1], can't be read; None if it can.

    `n_frames` is the number of frames on disk, if known.
    """
    if segment is None or segment[0] == segment[1]:
        return UNCOUNTED
    first = FIRST_NUMBER[file_type]
    if segment[0] < first:
        return f"starts at frame {segment[0]} in the index, but {file_type} frames start at {first}"
    if n_frames is not None and segment[1] > first + n_frames:
        last = first + n_frames - 1
        return f"frames up to number {last}, but up to {segment[1] - 1} in the index"
    return None
