"""The open pages, their videos, and the queue in which videos are processed one after another."""

import json
import queue
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from predict.overlay import CaptionCollector

SCORES, OVERLAY = "scores", "overlay"
WAITING, RUNNING, DONE, FAILED = "waiting", "running", "done", "failed"
MAX_WAITING = 20  # tasks in the queue or being received
MAX_SESSIONS = 200
MAX_VIDEOS = 50  # of one page
IDLE = 0.5  # seconds between checks for a signal where a waiting thread does not notice it
FILES = {  # that can be downloaded: name and media type
    "scores.json": "application/json",
    "scores.csv": "text/csv",
    "overlay.mp4": "video/mp4",
}


class Refused(Exception):
    """A request that can't be granted; the message is a sentence for the page."""


class Full(Refused):
    """There is no room at the moment."""


class EventLog:
    """The messages for one page, each as JSON; threads may add while others read."""

    def __init__(self) -> None:
        self._messages: list[tuple[str, str]] = []  # the video, and its JSON
        self.is_closed = False

    def add(self, video: str, content: dict[str, Any]) -> None:
        # ASCII: names of labels and files may hold what UTF-8 can't encode.
        line = json.dumps({"video": video, **content}, allow_nan=False)
        self._messages.append((video, line))

    def after(self, number: int) -> list[tuple[int, str]]:
        """Return (number, message) of all messages after the first `number`."""
        messages = self._messages[number:]
        return [(number + i, line) for i, (_, line) in enumerate(messages, start=1) if line]

    def forget(self, video: str) -> None:
        """Empty the messages about a video."""
        for number, (other, _) in enumerate(self._messages):
            if other == video:
                self._messages[number] = (video, "")

    def close(self) -> None:
        self.is_closed = True


class Video:
    """A video that a page has sent. The folder holds the upload, while it is needed, and results.

    The page chooses the id. `captions` are what an overlay draws, once the video is scored.
    """

    def __init__(self, video_id: str, name: str, folder: Path, log: EventLog) -> None:
        self.id, self.name, self.folder = video_id, name, folder
        self.folder.mkdir()
        self.captions: CaptionCollector | None = None
        self.is_arriving = True
        self._log = log

    def publish(self, **content: Any) -> None:
        self._log.add(self.id, content)

    def keep_captions(self, captions: "CaptionCollector") -> None:
        self.captions = captions

    def remove(self) -> None:
        self._log.forget(self.id)
        shutil.rmtree(self.folder, ignore_errors=True)


class Task:
    """Something to do with the upload of a video, SCORES or OVERLAY, that can be cancelled from
    any thread."""

    def __init__(self, kind: str, video: Video, upload: Path) -> None:
        self.kind, self.video, self.upload = kind, video, upload
        self.reason = ""  # why it was cancelled
        self._stop: Callable[[], None] | None = None
        self._lock = threading.Lock()

    def publish(self, state: str, **content: Any) -> None:
        self.video.publish(task=self.kind, state=state, **content)

    @contextmanager
    def stopped_by(self, stop: Callable[[], None]) -> Iterator[None]:
        """Inside the block, `cancel` calls `stop`."""
        with self._lock:
            self._stop = stop
            if self.reason:
                stop()
        try:
            yield
        finally:
            with self._lock:
                self._stop = None

    def cancel(self, reason: str) -> None:
        with self._lock:
            self.reason = self.reason or reason
            if self._stop is not None:
                self._stop()


class Session:
    """One open page: its messages and its videos."""

    def __init__(self) -> None:
        self.id = secrets.token_urlsafe(16)
        self.log = EventLog()
        self.videos: dict[str, Video] = {}
        self.removed: set[str] = set()  # ids, also of videos that have not arrived
        self.n_readers = 0  # connections that receive the messages


class Hub:
    """All sessions and the queue. Methods may be called from any thread."""

    def __init__(self, folder: Path) -> None:
        """Files are kept below `folder`."""
        self.folder = folder
        self._sessions: dict[str, Session] = {}
        self._tasks: list[Task] = []  # the first one is running if `_is_running`
        self._is_running = False
        self._n_coming = 0  # places of the queue that are held for uploads
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._lock = threading.RLock()
        self.is_closed = False

    def open_session(self) -> Session:
        """Raises Full if there are too many."""
        with self._lock:
            if len(self._sessions) >= MAX_SESSIONS:
                raise Full("Too many pages are open; close some.")
            session = Session()
            self._sessions[session.id] = session
            return session

    def session(self, session_id: str) -> Session | None:
        return self._sessions.get(session_id)

    def end_session(self, session: Session) -> None:
        """Remove a session with its videos."""
        with self._lock:
            if self._sessions.pop(session.id, None) is not None:
                session.log.close()
                for video in list(session.videos.values()):
                    self.remove(session, video)

    def add_video(self, session: Session, video_id: str, name: str) -> Video:
        """Raises Refused if the page lists too many, has gone, or has used the id; Full while an
        earlier upload of this video, which broke off, has not ended here."""
        with self._lock:
            self._check_known(session)
            if (earlier := session.videos.get(video_id)) is not None and earlier.is_arriving:
                raise Full("The upload broke off; it is sent again once the server has noticed.")
            if video_id in session.videos or video_id in session.removed:
                raise Refused("This video has been sent or removed already.")
            if len(session.videos) >= MAX_VIDEOS:
                raise Refused(f"{MAX_VIDEOS} videos are listed on this page; remove some first.")
            folder = self.folder / f"{session.id}-{video_id}"
            video = session.videos[video_id] = Video(video_id, name, folder, session.log)
            return video

    def _check_known(self, session: Session) -> None:
        if session.id not in self._sessions:
            raise Refused("The server no longer knows this page; reload it.")

    @property
    def why_full(self) -> str:
        """A sentence if the queue takes no more videos at the moment, else empty."""
        is_full = len(self._tasks) + self._n_coming >= MAX_WAITING
        return (
            "The queue of the server is full; this is sent when there is room." if is_full else ""
        )

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place in the queue while an upload arrives. Raises Full."""
        with self._lock:
            if self.why_full:
                raise Full(self.why_full)
            self._n_coming += 1
        try:
            yield
        finally:
            with self._lock:
                self._n_coming -= 1

    def add_task(self, session: Session, task: Task) -> None:
        """Put a task at the end of the queue, for which there is a place. Raises Refused if the
        page or the video has gone, or the same task is in it already."""
        with self._lock:
            self._check_known(session)
            if session.videos.get(task.video.id) is not task.video:
                raise Refused("This video has been removed.")
            if any((t.video, t.kind) == (task.video, task.kind) for t in self._tasks):
                raise Refused("This is being done already.")
            self._tasks.append(task)
            self._publish_places()
        self._wake.put(None)

    def _publish_places(self) -> None:
        first = 1 if self._is_running else 0
        for ahead, task in enumerate(self._tasks[first:], start=first):
            task.publish(WAITING, ahead=ahead)

    @contextmanager
    def next_task(self) -> Iterator[Task | None]:
        """Wait for a task and take it from the queue at the end of the block; None if closed."""
        task: Task | None = None
        while task is None and not self.is_closed:
            with self._lock:
                if self._tasks:
                    task, self._is_running = self._tasks[0], True
            if task is None:
                try:
                    self._wake.get(timeout=IDLE)
                except queue.Empty:
                    continue
        if task is None:
            yield None
            return
        task.publish(RUNNING)
        try:
            yield task
        finally:
            with self._lock:
                self._tasks.remove(task)
                self._is_running = False
                task.upload.unlink(missing_ok=True)
                if not any(task.video in s.videos.values() for s in self._sessions.values()):
                    task.video.remove()
                self._publish_places()

    def remove(self, session: Session, video: Video) -> None:
        """Remove a video with its files, and end what is being done with it."""
        with self._lock:
            session.videos.pop(video.id, None)
            running = self._tasks[:1] if self._is_running else []
            waiting = self._tasks[len(running) :]
            self._tasks = [*running, *(task for task in waiting if task.video is not video)]
            if any(task.video is video for task in running):
                running[0].cancel("removed")  # its files are removed at its end
            else:
                video.remove()
            self._publish_places()

    def close(self) -> None:
        """End the queue, and tell all pages."""
        with self._lock:
            self.is_closed = True
            for task in self._tasks:
                task.cancel("the server was stopped")
            for session in self._sessions.values():
                session.log.close()
        self._wake.put(None)
