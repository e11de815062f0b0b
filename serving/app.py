"""The requests that the page sends, as a Starlette application."""

import asyncio
import json
import re
import secrets
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serving.guard import Guard
from serving.hub import (
    FILES,
    MAX_VIDEOS,
    OVERLAY,
    SCORES,
    Full,
    Hub,
    Refused,
    Session,
    Task,
    Video,
)
from serving.page import render_page
from serving.uploads import Broken, NoSpace, TooLarge, clean_name, receive, upload_path
from utils.files import as_utf8

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

POLL = 0.1  # seconds between looks at the messages for a page
HEARTBEAT = 15  # seconds without a message after which an empty one is sent
GRACE = 30  # seconds without its page after which a session without videos is removed
KEPT = 1800  # the same with videos: a locked phone is not connected
UPLOAD_TYPE = "application/octet-stream"  # other sites can't send it without asking
VIDEO_ID = re.compile(r"[0-9a-f]{32}")
PICTURE = re.compile(r"[0-9]{1,9}\.jpg")  # of a window, by its number


@dataclass(frozen=True)
class PageSettings:
    """What the page says about the model and the server."""

    model: str  # name of the checkpoint
    arch: str
    labels: tuple[str, ...]
    clip: str  # what the model sees of a video
    max_bytes: int
    max_minutes: float


class App:
    """Answers requests; `hub` has the state."""

    def __init__(self, hub: Hub, settings: PageSettings) -> None:
        self._hub, self._settings = hub, settings
        self._ends: dict[str, asyncio.TimerHandle] = {}  # of sessions that have no page

    def asgi(self, hosts: Iterable[str]) -> Guard:
        """Return the application, which may be opened under the names `hosts` and by address."""
        from starlette.applications import Starlette
        from starlette.routing import Route

        video = "/{session}/videos/{video}"
        routes = [
            Route("/", self._page),
            Route("/sessions", self._open, methods=["POST"]),
            Route("/{session}", self._state),
            Route("/{session}/bye", self._bye, methods=["POST"]),
            Route("/{session}/events", self._events),
            Route(video, self._add, methods=["POST"]),
            Route(video, self._remove, methods=["DELETE"]),
            Route(f"{video}/overlay", self._overlay, methods=["POST"]),
            Route(f"{video}/{{file}}", self._file),
        ]
        return Guard(Starlette(routes=routes, exception_handlers={Refused: _refused}), hosts)

    async def _page(self, request: "Request") -> "Response":
        from starlette.responses import HTMLResponse

        if request.method == "HEAD":
            return HTMLResponse()
        nonce = secrets.token_urlsafe(16)
        policy = {
            "default-src": "'none'",
            "script-src": f"'nonce-{nonce}'",
            "style-src": f"'nonce-{nonce}'",
            "img-src": "'self' data:",
            "media-src": "blob:",
            "connect-src": "'self'",
            "base-uri": "'none'",
            "form-action": "'none'",
            "frame-ancestors": "'none'",
        }
        header = "; ".join(f"{name} {value}" for name, value in policy.items())
        limits = {"max_videos": MAX_VIDEOS, "kept_minutes": KEPT // 60}
        html = render_page(vars(self._settings) | limits, nonce)
        return HTMLResponse(html, headers={"content-security-policy": header})

    async def _open(self, request: "Request") -> "Response":
        session = self._hub.open_session()
        self._end_later(session)
        return _answer(201, {"session": session.id})

    async def _state(self, request: "Request") -> "Response":
        self._session(request)
        return _answer(200, {"full": self._hub.why_full})

    async def _bye(self, request: "Request") -> "Response":
        self._end(self._session(request))
        return _answer(200, {})

    def _end_later(self, session: Session) -> None:
        seconds = KEPT if session.videos else GRACE
        loop = asyncio.get_running_loop()
        self._keep(session)
        self._ends[session.id] = loop.call_later(seconds, self._end, session)

    def _keep(self, session: Session) -> None:
        timer = self._ends.pop(session.id, None)
        if timer is not None:
            timer.cancel()

    def _end(self, session: Session) -> None:
        self._keep(session)
        self._hub.end_session(session)

    async def _events(self, request: "Request") -> "Response":
        from starlette.responses import StreamingResponse

        session = self._session(request)
        after = request.query_params.get("after", "0")  # a browser repeats it when it reconnects
        last = request.headers.get("last-event-id", after)
        number = int(last[:9]) if last.isascii() and last.isdigit() else 0
        messages = self._messages(session, number)
        unbuffered = {"x-accel-buffering": "no"}  # by nginx
        return StreamingResponse(messages, media_type="text/event-stream", headers=unbuffered)

    async def _messages(self, session: Session, number: int) -> AsyncIterator[str]:
        """Yield the messages for a page as server-sent events, until the server or page ends."""
        session.n_readers += 1
        self._keep(session)
        try:
            idle = 0.0
            yield "retry: 1000\n\n"
            while True:
                is_last = session.log.is_closed
                messages = session.log.after(number)
                for number, line in messages:
                    yield f"id: {number}\ndata: {line}\n\n"
                if is_last:
                    yield "event: stopped\ndata: \n\n"
                    return
                idle = 0.0 if messages else idle + POLL
                if idle >= HEARTBEAT:
                    idle = 0.0
                    yield ":\n\n"
                await asyncio.sleep(POLL)
        finally:
            session.n_readers -= 1
            if not session.n_readers and not session.log.is_closed:
                self._end_later(session)

    async def _add(self, request: "Request") -> "Response":
        session, video_id = self._session(request), _video_id(request)
        name = clean_name(as_utf8(request.query_params.get("name", "")))
        _check_type(request)
        with self._hub.place():
            video = self._hub.add_video(session, video_id, name)
            try:
                await self._receive(request, session, video, SCORES)
            except BaseException:
                self._hub.remove(session, video)
                raise
            video.is_arriving = False
        return _answer(201, {"video": video.id})

    async def _overlay(self, request: "Request") -> "Response":
        session, video = self._video(request)
        _check_type(request)
        if video.captions is None:
            raise Refused("This video has no scores yet.")
        with self._hub.place():
            await self._receive(request, session, video, OVERLAY)
        return _answer(201, {"video": video.id})

    async def _receive(self, request: "Request", session: Session, video: Video, kind: str) -> None:
        stem = f"upload-{secrets.token_hex(4)}"
        path = upload_path(video.folder, video.name, stem)
        await receive(request, path, self._settings.max_bytes)
        try:
            self._hub.add_task(session, Task(kind, video, path))
        except Refused:
            path.unlink(missing_ok=True)
            raise

    async def _remove(self, request: "Request") -> "Response":
        """Remove a video, also one whose upload has not begun to arrive."""
        session, video_id = self._session(request), _video_id(request)
        session.removed.add(video_id)
        video = session.videos.get(video_id)
        if video is not None:
            self._hub.remove(session, video)
        return _answer(200, {})

    async def _file(self, request: "Request") -> "Response":
        from starlette.responses import FileResponse

        _, video = self._video(request)
        name = request.path_params["file"]
        media_type = "image/jpeg" if PICTURE.fullmatch(name) else FILES.get(name)
        path = video.folder / name
        if media_type is None or not path.is_file():
            raise NotFound("There is no such file.")
        shown = f"{Path(video.name).stem}.{name}"
        return FileResponse(path, media_type=media_type, filename=shown)

    def _session(self, request: "Request") -> Session:
        session = self._hub.session(request.path_params["session"])
        if session is None:
            raise NotFound("The server no longer knows this page; reload it.")
        return session

    def _video(self, request: "Request") -> tuple[Session, Video]:
        session = self._session(request)
        video = session.videos.get(request.path_params["video"])
        if video is None:
            raise NotFound("This video has been removed.")
        return session, video


class NotFound(Refused):
    pass


class WrongType(Refused):
    pass


STATUS: dict[type[Exception], int] = {
    Broken: 400,
    NotFound: 404,
    TooLarge: 413,
    WrongType: 415,
    Full: 503,
    NoSpace: 507,
}  # other refusals are 409


def _video_id(request: "Request") -> str:
    video_id = request.path_params["video"]
    if VIDEO_ID.fullmatch(video_id) is None:
        raise NotFound("There is no such video.")
    return video_id


def _check_type(request: "Request") -> None:
    if request.headers.get("content-type", "") != UPLOAD_TYPE:
        raise WrongType(f"Send the video as {UPLOAD_TYPE}.")


async def _refused(request: "Request", error: Exception) -> "Response":
    response = _answer(STATUS.get(type(error), 409), {"error": str(error)})
    response.headers["connection"] = "close"  # the rest of an upload is not read
    return response


def _answer(status: int, content: Mapping[str, Any]) -> "Response":
    from starlette.responses import Response

    text = json.dumps(content, ensure_ascii=False, allow_nan=False)
    body = text.encode("utf-8", "backslashreplace")
    return Response(body, status, media_type="application/json")
