"""Errors of a full disk, whatever raises them."""

import errno

import pytest

from facejax.full_disk import DiskFullError, explain_full_disk


@pytest.mark.parametrize(
    "cause",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "over quota"),
        ValueError("RESOURCE_EXHAUSTED: ... [OS error 28: ENOSPC No space left on device]"),
    ],
)
def test_the_disk_and_what_is_complete_are_named(tmp_path, cause):
    folder = tmp_path / "not" / "yet"
    words = rf"disk of {folder} is full \(\d+ MiB free\)\. Half is done: free some space and run the same command again"
    with pytest.raises(DiskFullError, match=words) as raised, explain_full_disk(folder, lambda: "Half is done"):
        raise RuntimeError("a thread failed") from cause
    assert raised.value.errno == errno.ENOSPC


@pytest.mark.parametrize("error", [OSError(errno.EACCES, "denied"), DiskFullError(errno.ENOSPC, "explained before")])
def test_other_errors_are_left_as_they_are(tmp_path, error):
    with pytest.raises(type(error)) as raised, explain_full_disk(tmp_path, lambda: pytest.fail("not needed")):
        raise error
    assert raised.value is error
