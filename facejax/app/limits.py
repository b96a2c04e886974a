"""Limits of the app, which are also passed to the page. Standard library only."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits on requests to the app.

    Attributes:
        photo_bytes: Size of a photo file.
        clip_bytes: Size of a clip file.
        clip_seconds: Later frames of a clip are not analysed.
        clip_fps: Frames to analyse per second of a clip.
        clip_side: Larger frames are downscaled to this many pixels on their longer side.
        clip_pixels: Pixels of a frame, as stated in the file's header.
        waiting: Uploads that may wait for the one being processed; further ones are rejected.
        upload_seconds: Slower uploads are aborted.
        answer_seconds: A client that takes longer to receive a line of a clip's response is disconnected.
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
        """The limits that the page needs."""
        names = ("photo_bytes", "clip_bytes", "clip_seconds", "clip_fps")
        return {name: getattr(self, name) for name in names}
