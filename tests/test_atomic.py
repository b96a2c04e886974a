import os

import pytest

from facejax.atomic import atomic_file, write_atomically


def test_an_error_leaves_the_file_of_before(tmp_path):
    write_atomically(tmp_path / "a", b"old")
    with pytest.raises(KeyboardInterrupt), atomic_file(tmp_path / "a") as file:
        file.write(b"new")
        raise KeyboardInterrupt
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"old")]
    write_atomically(tmp_path / "a", b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"new")]


def test_all_bytes_are_on_the_disk_before_the_file_gets_its_name(tmp_path, monkeypatch):
    steps = []

    def fsync(number):
        steps.append(("fsync", os.fstat(number).st_size))

    def replace(source, target):
        steps.append(("replace", os.path.basename(target)))
        os.rename(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    write_atomically(tmp_path / "a", b"data")
    assert steps == [("fsync", 4), ("replace", "a")]


def test_two_who_write_the_same_file_at_once_do_not_mix_it(tmp_path):
    with atomic_file(tmp_path / "a") as first, atomic_file(tmp_path / "a") as second:
        first.write(b"first")
        second.write(b"2nd")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"first")]
