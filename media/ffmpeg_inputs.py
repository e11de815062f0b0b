"""ffmpeg's input arguments, restricted: it opens one file and nothing else, or the network and no
file. Passwords in URLs appear in no process list and no message.

A playlist named like a video, or sent by a server, can name other files and URLs, which ffmpeg
would open too. These lists limit its protocols and demuxers.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote

from errors import UserError
from utils.reading import shown_name

# Demuxers that read a single file. Excluded: those that open other files (concat, dash, hls,
# image2, imf, mlv, sdp, vobsub …), that run scripts (avisynth), and audio.
CONTAINERS = (
    "asf,av1,avi,cavsvideo,dhav,dirac,dnxhd,dv,evc,flv,gif,gxf,h261,h263,h264,hevc,ingenient,ivf,"
    "jpegxl_anim,live_flv,m4v,matroska,webm,mjpeg,mjpeg_2000,mov,mp4,mpeg,mpegts,mpegtsraw,"
    "mpegvideo,mpjpeg,mxf,nsv,nut,nuv,obu,ogg,pva,r3d,rm,swf,ty,vc1,vc1test,vvc,webp_anim,wtv,"
    "yuv4mpegpipe,apng,avs2,avs3,"
    # formats of the 1990s and of games
    "4xm,anm,bethsoftvid,bfi,bink,c93,cdxl,cine,dsicin,dxa,ea,film_cpk,filmstrip,flic,idcin,"
    "ipmovie,iv8,jv,kux,lmlm4,lxf,mm,moflex,mtv,mv,mvi,nc,paf,pmp,rl2,roq,rpl,ser,siff,smjpeg,smk,"
    "smush,thp,tiertexseq,tmv,vivo,vividas,vmd,wc3movie,wsvqa,xmv,yop"
)
# Opened only to recognise a file as a picture.
PICTURES = (
    "bmp_pipe,cri_pipe,dds_pipe,dpx_pipe,exr_pipe,gem_pipe,gif_pipe,hdr_pipe,ico,j2k_pipe,"
    "jpeg_pipe,jpegls_pipe,jpegxl_pipe,jpegxs_pipe,pam_pipe,pbm_pipe,pcx_pipe,pfm_pipe,pgm_pipe,"
    "pgmyuv_pipe,pgx_pipe,phm_pipe,photocd_pipe,pictor_pipe,png_pipe,ppm_pipe,psd_pipe,qdraw_pipe,"
    "qoi_pipe,sgi_pipe,sunrast_pipe,tiff_pipe,vbn_pipe,webp_pipe,xbm_pipe,xpm_pipe,xwd_pipe,tty"
)
STREAMED = "concat,dash,hls,rtp,rtsp"  # demuxers for URLs; their parts are on the network too
PROTOCOLS = (
    "crypto,dtls,ftp,hls,http,httpproxy,https,mmsh,mmst,rist,rtmp,rtmpe,rtmps,rtmpt,rtmpte,rtmpts,"
    "rtp,sctp,sftp,srt,srtp,tcp,tls,udp,udplite"
)
# What a URL may begin with; rtsp and rtsps are demuxers.
SCHEMES = frozenset(PROTOCOLS.split(",")) - {"crypto", "httpproxy"} | {"rtsp", "rtsps"}
RTSP = ("rtsp", "rtsps")
PATIENCE = 60  # seconds without data or a frame after which a URL, a pipe or a camera has failed
LONGEST_URL = 3500  # characters; the script around it still fits into any system's pipe
URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://[^\s'\"<>\\]*")
HIDDEN = "***"
SHORTEST_SECRET = 4  # characters; shorter values occur in other words


@dataclass(frozen=True)
class Piped:
    """An argument that ffmpeg reads from a pipe, because all users of a machine can see the
    arguments of a process. `secrets` must not appear in messages."""

    content: str
    secrets: tuple[str, ...] = ()


Argument = str | Piped


def input_of(path: Path) -> list[str]:
    """Return arguments that open this file and nothing else, whatever its name and content."""
    limits = ["-protocol_whitelist", "file", "-format_whitelist", f"{CONTAINERS},{PICTURES}"]
    return [*limits, "-threads", "1", "-i", f"file:{path.absolute()}"]


def input_of_url(url: str) -> list[Argument]:
    """Return arguments that open a URL and no file of this machine.

    Raises UserError for anything that is not a network URL.
    """
    match = URL.fullmatch(url)
    if match is None or len(url) > LONGEST_URL:
        shown = shown_name(redacted(url)[:200])
        raise UserError(f"{shown}: not a URL: it contains a space or a quote, or is too long")
    scheme = match["scheme"].lower()
    if scheme not in SCHEMES:
        known = ", ".join(sorted(SCHEMES))
        raise UserError(f"{shown_url(url)}: unknown protocol {scheme}: choose from {known}")
    microseconds = str(PATIENCE * 1_000_000)
    options = {"rw_timeout": microseconds}
    if scheme in RTSP:  # UDP is often blocked by firewalls, and loses packets
        options = {"timeout": microseconds, "rtsp_flags": "prefer_tcp"}
    # The only way to pass a URL that all ffmpeg versions support and no process list shows.
    script = f"ffconcat version 1.0\nfile {url}\n" + "".join(
        f"option {name} {value}\n" for name, value in options.items()
    )
    limits = ["-protocol_whitelist", f"pipe,{PROTOCOLS}"]
    limits += ["-format_whitelist", f"{CONTAINERS},{STREAMED}"]
    concat = ["-f", "concat", "-safe", "0", "-i"]
    return [*limits, "-threads", "1", *concat, Piped(script, secrets_of(url))]


def input_of_device(path: Path) -> list[str]:
    """Return arguments that open a camera of this machine (video4linux2)."""
    return ["-f", "v4l2", "-threads", "1", "-i", str(path.absolute())]


def _parts(url: str) -> tuple[str, str, str, str]:
    """Split a URL into scheme, user and password, host and path, query and fragment."""
    scheme, _, rest = url.partition("://")
    end = re.search(r"[?#]", rest)
    place, query = (rest[: end.start()], rest[end.start() :]) if end else (rest, "")
    host = place.partition("/")[0]
    user, at, host = host.rpartition("@")
    if not at and not re.fullmatch(r"(\[[^]]*\]|[^:]*)(:\d*)?", host):
        # What looks like a port is the start of a password that contains a slash, or has no @.
        user, at, rest = place.rpartition("@")
        return (scheme, user, rest, query) if at else (scheme, place, HIDDEN, query)
    return scheme, user, place[len(user) + len(at) :], query


def shown_url(url: str) -> str:
    """Return a URL for messages and files: without user, password and values of the query."""
    scheme, _, place, query = _parts(url)
    names = re.sub(r"([?&;#])([^=&;#]*=)?[^&;#]*", rf"\1\2{HIDDEN}", query)
    return f"{scheme}://{place}{names}"


def secrets_of(url: str) -> tuple[str, ...]:
    """Return what a message about a URL must not contain, the longest first: user and password,
    the query, and values in them that are long enough to be replaced safely."""
    if not URL.match(url):
        return ()
    _, user, _, query = _parts(url)
    values = [user.partition(":")[2], *(value for _, value in parse_qsl(query.lstrip("?#")))]
    long = [value for value in values if len(value) >= SHORTEST_SECRET]
    found = {user, query[1:], *long, *map(unquote, long)} - {""}
    return tuple(sorted(found, key=len, reverse=True))


def redacted(text: str, secrets: Iterable[str] = ()) -> str:
    """Replace `secrets`, and the secrets of all URLs in the text."""
    text = URL.sub(lambda match: shown_url(match[0]), text)
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    return text


def secrets_in(arguments: Sequence[Argument]) -> list[str]:
    return [s for argument in arguments if isinstance(argument, Piped) for s in argument.secrets]
