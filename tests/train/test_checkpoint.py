"""Checkpoints that are damaged, interrupted, or run out of disk space."""

import errno
import json
import logging
import pathlib
import random
import shutil
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from facejax import integrity
from facejax.full_disk import DiskFullError
from facejax.train import parallel
from facejax.train.checkpoint import Checkpointer, CheckpointError, quarantine_damaged, space_needed

from . import toy

TRIES = 30


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """(folder with the checkpoints of steps 4 and 8, the states that were saved)."""
    directory = tmp_path_factory.mktemp("run") / "checkpoints"
    states = {step: put(step) for step in (4, 8)}
    checkpointer = Checkpointer(directory)
    for step, state in states.items():
        checkpointer.save(step, state, {"step": step})
    checkpointer.close()
    return directory, states


def put(step, devices=8, sharing="none"):
    """A toy state that encodes its step, on some devices."""
    functions, state = toy.setup()
    params = jax.tree.map(lambda leaf: leaf + step, state.params)
    placement = parallel.place(functions, "jit", parallel.data_mesh(jax.devices()[:devices]), sharing)
    return placement.put_state(state.replace(params=params, step=jnp.asarray(step, jnp.int32)))


def same(a, b):
    a, b = (jax.device_get(x.replace(rng=jax.random.key_data(x.rng))) for x in (a, b))
    return jax.tree.all(jax.tree.map(lambda x, y: x.dtype == y.dtype and bool((x == y).all()), a, b))


def files(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def flip_a_bit(path, draw):
    data = bytearray(path.read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)


def truncate(path, draw):
    path.write_bytes(path.read_bytes()[: draw.randrange(path.stat().st_size)])


def remove(path, draw):
    path.unlink()


def test_newest_is_restored_bit_equal(saved, tmp_path):
    directory = shutil.copytree(saved[0], tmp_path / "checkpoints")
    checkpointer = Checkpointer(directory)
    assert checkpointer.latest_progress() == {"step": 8}
    assert same(checkpointer.restore_latest(put(0)), saved[1][8])
    checkpointer.close()


def test_every_file_in_an_item_is_hashed(saved):
    folder = saved[0] / "8"
    hashed = set(json.loads((folder / integrity.MANIFEST).read_text()))
    inside = {path.relative_to(folder).as_posix() for path in files(folder) if path.parent != folder}
    assert hashed == inside
    assert any("ocdbt" in name for name in hashed)


@pytest.mark.parametrize("harm", [flip_a_bit, truncate, remove])
def test_damaged_checkpoint_is_set_aside_loudly_and_the_one_before_it_used(saved, tmp_path, caplog, harm):
    draw = random.Random(time.time_ns())
    for attempt in range(TRIES):
        directory = shutil.copytree(saved[0], tmp_path / str(attempt) / "checkpoints")
        path = draw.choice([path for path in files(directory / "8") if path.stat().st_size and path.parent.name != "8"])
        harm(path, draw)
        caplog.clear()
        with caplog.at_level(logging.WARNING, "facejax"):
            quarantine_damaged(directory)
        assert "CHECKPOINT 8 IS DAMAGED" in caplog.text, path
        assert path.relative_to(directory / "8").as_posix() in caplog.text
        assert "resumes from checkpoint 4" in caplog.text
        assert [folder.name for folder in directory.iterdir()] == ["4"]
        assert (tmp_path / str(attempt) / "checkpoints_damaged" / "8").is_dir()
    checkpointer = Checkpointer(directory)
    assert same(checkpointer.restore_latest(put(0)), saved[1][4])
    # The run reaches step 8 again and can save it.
    checkpointer.save(8, saved[1][8], {"step": 8})
    checkpointer.close()
    assert integrity.find_damage(directory / "8") is None


def test_steps_are_numbers_and_may_be_damaged_again(saved, tmp_path, caplog):
    """Step 12 is newer than step 8, although its name sorts first."""
    directory = tmp_path / "checkpoints"
    for step in (8, 12):
        shutil.copytree(saved[0] / "8", directory / str(step))
    for _ in range(2):  # the run resumes from 8, saves 12 again, and that is damaged too
        truncate(directory / "12" / "state" / "manifest.ocdbt", random.Random(0))
        with pytest.raises(DiskFullError, match="step 12 is complete"), space_needed(directory):
            raise OSError(errno.ENOSPC, "No space left on device")
        quarantine_damaged(directory)
        assert [folder.name for folder in directory.iterdir()] == ["8"]
        assert "resumes from checkpoint 8" in caplog.text
        assert [folder.name for folder in (tmp_path / "checkpoints_damaged").iterdir()] == ["12"]
        shutil.copytree(saved[0] / "8", directory / "12")


def test_damage_outside_the_items_does_no_harm(saved, tmp_path):
    """Orbax writes these files while it renames the folder, so that they cannot be in the manifest."""
    for path in (saved[0] / "8").iterdir():
        if path.is_dir() or path.name == integrity.MANIFEST:
            continue
        directory = shutil.copytree(saved[0], tmp_path / path.name / "checkpoints")
        (directory / "8" / path.name).write_bytes(b"\0" * 10)
        checkpointer = Checkpointer(directory)
        assert same(checkpointer.restore_latest(put(0)), saved[1][8])
        checkpointer.close()


def test_damaged_manifest_counts_as_damage(saved, tmp_path):
    directory = shutil.copytree(saved[0], tmp_path / "checkpoints")
    for text in ("", "{", "[]", '{"state/x": "00"}'):
        (directory / "8" / integrity.MANIFEST).write_text(text)
        assert integrity.find_damage(directory / "8"), text


def test_all_damaged_is_an_error_and_nothing_is_moved(saved, tmp_path):
    directory = shutil.copytree(saved[0], tmp_path / "checkpoints")
    for step in ("4", "8"):
        truncate(directory / step / "state" / "manifest.ocdbt", random.Random(0))
    with pytest.raises(CheckpointError, match=r"every checkpoint.*is damaged.*remove it"):
        Checkpointer(directory)
    assert sorted(folder.name for folder in directory.iterdir()) == ["4", "8"]


def test_unfinished_save_is_removed_and_the_last_whole_one_used(saved, tmp_path):
    directory = shutil.copytree(saved[0], tmp_path / "checkpoints")
    (directory / "8").rename(directory / "8.orbax-checkpoint-tmp")
    checkpointer = Checkpointer(directory)
    assert checkpointer.latest_progress() == {"step": 4}
    checkpointer.save(8, saved[1][8], {"step": 8})
    checkpointer.close()
    assert sorted(folder.name for folder in directory.iterdir()) == ["4", "8"]


@pytest.mark.parametrize(("devices", "sharing"), [(1, "none"), (2, "full"), (8, "optimizer")])
def test_restores_on_other_devices_and_another_sharding(saved, tmp_path, monkeypatch, devices, sharing):
    monkeypatch.setattr(parallel, "MIN_SHARDED_ELEMENTS", 1)
    checkpointer = Checkpointer(shutil.copytree(saved[0], tmp_path / "checkpoints"))
    template = put(0, devices, sharing)
    restored = checkpointer.restore_latest(template)
    assert same(restored, saved[1][8])
    assert jax.tree.all(jax.tree.map(lambda a, b: a.sharding == b.sharding, restored, template))
    checkpointer.close()


@pytest.mark.parametrize("step", [4, 8])
def test_a_step_is_saved_once_and_stays_whole(saved, tmp_path, step):
    """Replacing it would leave no checkpoint for a while."""
    checkpointer = Checkpointer(shutil.copytree(saved[0], tmp_path / "checkpoints"))
    with pytest.raises(ValueError, match=rf"step {step} is already saved; the newest checkpoint is 8"):
        checkpointer.save(step, saved[1][8], {"step": step, "again": True})
    assert checkpointer.latest_progress() == {"step": 8}
    checkpointer.close()


def test_one_checkpoint_is_too_few(tmp_path):
    with pytest.raises(ValueError, match=r"checkpoint.keep=1: expected 2 or more"):
        Checkpointer(tmp_path, keep=1)


def test_a_full_disk_is_explained_by_the_newest_complete_checkpoint(saved, tmp_path):
    for directory, words in ((saved[0], "The checkpoint of step 8 is complete"), (tmp_path / "none", "no complete")):
        with pytest.raises(DiskFullError, match=words), space_needed(directory):
            raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # TensorStore's abandoned writes
def test_full_disk_leaves_the_last_checkpoint_whole(small_disk):
    directory = small_disk / "checkpoints"
    checkpointer = Checkpointer(directory)
    state = put(4)
    noise = np.random.default_rng(0).standard_normal(500_000, np.float32)  # 2 MB of incompressible data
    checkpointer.save(4, state.replace(params={"noise": noise}), {"step": 4})
    checkpointer.wait()
    with pytest.raises(DiskFullError, match=r"step 4 is complete"):
        checkpointer.save(8, state.replace(params={"noise": noise[::-1].copy()}), {"step": 8})
        checkpointer.wait()
    checkpointer.close()
    # With more space (the file that filled the disk is the unfinished checkpoint itself) the run continues.
    assert integrity.find_damage(directory / "4") is None
    again = Checkpointer(directory)
    assert again.latest_progress() == {"step": 4}
    template = state.replace(params={"noise": jax.device_put(noise)})
    np.testing.assert_array_equal(again.restore_latest(template).params["noise"], noise)
    again.close()
