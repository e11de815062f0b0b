"""Whether the frames that an index counts can be read: one check, for main.py before a run and for
check_dataset."""

FIRST_NUMBER = {"jpg": 1, "hdf5": 0, "video": 1}  # of a video's frames
UNCOUNTED = "the index counts no frames"


def segment_fault(
    segment: tuple[int, int] | None, file_type: str, n_frames: int | None = None
) -> str | None:
    """Why a segment, [first frame, last frame + 1], can't be read; None if it can.

    `n_frames` is how many frames there are, where they were counted.
    """
    if segment is None or segment[0] == segment[1]:
        return UNCOUNTED
    first = FIRST_NUMBER[file_type]
    if segment[0] < first:
        return f"the index counts from frame {segment[0]}, but those of {file_type} from {first}"
    if n_frames is not None and segment[1] > first + n_frames:
        last = first + n_frames - 1
        return f"frames to number {last}, in the index to {segment[1] - 1}"
    return None
