"""What ffmpeg may open: a file and nothing else, or the network and no file; URLs are handed over
so that their passwords stand in no process list and in no message.

A playlist by the name of a video, or one that a server sends, names other files and URLs, which
ffmpeg opens as well: its protocols and its demuxers are therefore limited to these lists.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote

from errors import UserError
from utils.reading import shown_name

# Demuxers that read one file from its start to its end. Left out are those that open others
# (concat, dash, hls, image2, imf, mlv, sdp, vobsub …) or run scripts (avisynth), and sound.
CONTAINERS = (
    "asf,av1,avi,cavsvideo,dhav,dirac,dnxhd,dv,evc,flv,gif,gxf,h261,h263,h264,hevc,ingenient,ivf,"
    "jpegxl_anim,live_flv,m4v,matroska,webm,mjpeg,mjpeg_2000,mov,mp4,mpeg,mpegts,mpegtsraw,"
    "mpegvideo,mpjpeg,mxf,nsv,nut,nuv,obu,ogg,pva,r3d,rm,swf,ty,vc1,vc1test,vvc,webp_anim,wtv,"
    "yuv4mpegpipe,apng,avs2,avs3,"
    # of the nineties, and of games
    "4xm,anm,bethsoftvid,bfi,bink,c93,cdxl,cine,dsicin,dxa,ea,film_cpk,filmstrip,flic,idcin,"
    "ipmovie,iv8,jv,kux,lmlm4,lxf,mm,moflex,mtv,mv,mvi,nc,paf,pmp,rl2,roq,rpl,ser,siff,smjpeg,smk,"
    "smush,thp,tiertexseq,tmv,vivo,vividas,vmd,wc3movie,wsvqa,xmv,yop"
)
# Not opened for their frames, but so that they are recognised.
PICTURES = (
    "bmp_pipe,cri_pipe,dds_pipe,dpx_pipe,exr_pipe,gem_pipe,gif_pipe,hdr_pipe,ico,j2k_pipe,"
    "jpeg_pipe,jpegls_pipe,jpegxl_pipe,jpegxs_pipe,pam_pipe,pbm_pipe,pcx_pipe,pfm_pipe,pgm_pipe,"
    "pgmyuv_pipe,pgx_pipe,phm_pipe,photocd_pipe,pictor_pipe,png_pipe,ppm_pipe,psd_pipe,qdraw_pipe,"
    "qoi_pipe,sgi_pipe,sunrast_pipe,tiff_pipe,vbn_pipe,webp_pipe,xbm_pipe,xpm_pipe,xwd_pipe,tty"
)
STREAMED = "concat,dash,hls,rtp,rtsp"  # whose parts are on the network, too
PROTOCOLS = (
    "crypto,dtls,ftp,hls,http,httpproxy,https,mmsh,mmst,rist,rtmp,rtmpe,rtmps,rtmpt,rtmpte,rtmpts,"
    "rtp,sctp,sftp,srt,srtp,tcp,tls,udp,udplite"
)
# Those of them that a URL may begin with, and two that are demuxers.
SCHEMES = frozenset(PROTOCOLS.split(",")) - {"crypto", "httpproxy"} | {"rtsp", "rtsps"}
RTSP = ("rtsp", "rtsps")
SILENCE = 15_000_000  # microseconds without a byte, after which a server counts as gone
LONGEST_URL = 3500  # characters; with the lines around it, it fits in any system's pipe
URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://[^\s'\"<>\\]*")
HIDDEN = "***"
SHORTEST_SECRET = 4  # characters of a value that is hidden wherever it stands


@dataclass(frozen=True)
class Piped:
    """An argument's content, which ffmpeg reads from a pipe: arguments are seen by all users of a
    machine. `secrets` are what no message may hold."""

    content: str
    secrets: tuple[str, ...] = ()


Argument = str | Piped


def input_of(path: Path) -> list[str]:
    """The arguments that open a file and nothing else, whatever its name and content."""
    limits = ["-protocol_whitelist", "file", "-format_whitelist", f"{CONTAINERS},{PICTURES}"]
    return [*limits, "-threads", "1", "-i", f"file:{path.absolute()}"]


def input_of_url(url: str) -> list[Argument]:
    """The arguments that open a source on the network, which leads to no file of this machine.

    Raises UserError for what is no URL of the network.
    """
    match = URL.fullmatch(url)
    if match is None or len(url) > LONGEST_URL:
        shown = shown_name(redacted(url)[:200])
        raise UserError(f"{shown}: not a URL: it has a space, a quote, or is too long")
    scheme = match["scheme"].lower()
    if scheme not in SCHEMES:
        known = ", ".join(sorted(SCHEMES))
        raise UserError(f"{shown_url(url)}: no protocol of the network is called {scheme}: {known}")
    options = {"rw_timeout": str(SILENCE)}
    if scheme in RTSP:  # UDP passes few firewalls, and loses packets
        options = {"timeout": str(SILENCE), "rtsp_flags": "prefer_tcp"}
    # The only way to hand over a URL that every ffmpeg knows and that no process list shows.
    script = f"ffconcat version 1.0\nfile {url}\n" + "".join(
        f"option {name} {value}\n" for name, value in options.items()
    )
    limits = ["-protocol_whitelist", f"pipe,{PROTOCOLS}"]
    limits += ["-format_whitelist", f"{CONTAINERS},{STREAMED}"]
    concat = ["-f", "concat", "-safe", "0", "-i"]
    return [*limits, "-threads", "1", *concat, Piped(script, secrets_of(url))]


def input_of_device(path: Path) -> list[str]:
    """The arguments that open a camera of this machine (video4linux2)."""
    return ["-f", "v4l2", "-threads", "1", "-i", str(path.absolute())]


def _parts(url: str) -> tuple[str, str, str, str]:
    """Scheme, user and password, host and path, query and fragment of a URL."""
    scheme, _, rest = url.partition("://")
    end = re.search(r"[?#]", rest)
    place, query = (rest[: end.start()], rest[end.start() :]) if end else (rest, "")
    host = place.partition("/")[0]
    user, at, host = host.rpartition("@")
    if not at and not re.fullmatch(r"(\[[^]]*\]|[^:]*)(:\d*)?", host):
        # What looks like a port is the start of a password with a slash in it, or without an @.
        user, at, rest = place.rpartition("@")
        return (scheme, user, rest, query) if at else (scheme, place, HIDDEN, query)
    return scheme, user, place[len(user) + len(at) :], query


def shown_url(url: str) -> str:
    """A URL for messages and files: without user and password, and without what a query says."""
    scheme, _, place, query = _parts(url)
    names = re.sub(r"([?&;#])([^=&;#]*=)?[^&;#]*", rf"\1\2{HIDDEN}", query)
    return f"{scheme}://{place}{names}"


def secrets_of(url: str) -> tuple[str, ...]:
    """What a message about a URL must not hold: its user and password, its query, and the values
    in them that are long enough to be told from other words. None of what is no URL."""
    if not URL.match(url):
        return ()
    _, user, _, query = _parts(url)
    values = [user.partition(":")[2], *(value for _, value in parse_qsl(query.lstrip("?#")))]
    long = [value for value in values if len(value) >= SHORTEST_SECRET]
    found = {user, query[1:], *long, *map(unquote, long)} - {""}
    return tuple(sorted(found, key=len, reverse=True))


def redacted(text: str, secrets: Iterable[str] = ()) -> str:
    """A text without secrets and without those of any URL in it."""
    text = URL.sub(lambda match: shown_url(match[0]), text)
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    return text


def secrets_in(arguments: Sequence[Argument]) -> list[str]:
    return [s for argument in arguments if isinstance(argument, Piped) for s in argument.secrets]
