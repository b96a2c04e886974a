"""What the app takes at most; the page is told the same numbers. Standard library only."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Limits:
    """Bounds on what is sent to the app.

    Attributes:
        photo_bytes: Length of a photo's file.
        clip_bytes: Length of a clip's file.
        clip_seconds: Later frames of a clip are not looked at.
        clip_fps: Frames that are looked at, a second of the clip.
        clip_side: Larger frames are reduced to this many pixels on their longer side.
        clip_pixels: Of a frame, as the file's header states it.
        waiting: Uploads that may wait for the one that is worked on; further ones are turned away.
        upload_seconds: An upload that takes longer is given up.
        answer_seconds: A client that takes longer for a line of a clip's answer is left.
    """

    photo_bytes: int = 32 * 2**20
    clip_bytes: int = 100 * 2**20
    clip_seconds: int = 30
    clip_fps: int = 6
    clip_side: int = 1280
    clip_pixels: int = 2**25
    waiting: int = 8
    upload_seconds: int = 60
    answer_seconds: float = 60.0

    def for_page(self) -> dict[str, int]:
        """Those that the page needs."""
        names = ("photo_bytes", "clip_bytes", "clip_seconds", "clip_fps")
        return {name: getattr(self, name) for name in names}
