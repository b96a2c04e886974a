"""The report of every kind of head, of made-up scores."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from facejax.config import Config
from facejax.data.source import FaceSource
from facejax.evals.report import write_report
from facejax.tasks import TASKS
from facejax.train.step import scores as step_scores

RECORDS = 80


class Faces(FaceSource):
    """What the report asks of an evaluation split."""

    def __init__(self, labels):
        self._labels = labels
        self.fields = self.label_keys = list(labels)

    def labels(self, key):
        return self._labels[key]

    def read(self, index):
        return {"image": np.full((8, 8, 3), index, np.uint8)}

    def __len__(self):
        return RECORDS


@pytest.fixture
def labels():
    rng = np.random.default_rng(0)
    return {
        "gender": rng.integers(0, 2, RECORDS),
        "ethnicity": rng.integers(0, 5, RECORDS),
        "age": rng.integers(1, 90, RECORDS),
        "emotion": rng.integers(0, 8, RECORDS),
        "person": rng.integers(0, 20, RECORDS),
    }


@pytest.mark.parametrize("name", ["gender", "age", "ethnicity", "emotion8"])
def test_figures_of_groups_add_up_to_those_of_all(name, labels, tmp_path):
    task, rng = TASKS[name], np.random.default_rng(1)
    logits = rng.normal(size=(RECORDS, task.num_outputs)).astype(np.float32)
    truth = labels[task.label_key].copy()
    # Better than chance, or a report that is wrong everywhere would be right.
    logits[: RECORDS // 2] *= 0.1
    if task.kind == "binary":
        logits[: RECORDS // 2, 0] += 2 * truth[: RECORDS // 2] - 1
    else:
        logits[np.arange(RECORDS // 2), truth[: RECORDS // 2] - (task.kind == "age")] += 5
    scores = np.array(step_scores(task, jnp.asarray(logits)))
    scores[3], truth[5] = np.nan, -1
    for epoch in ("best", "last"):
        stored = {f"scores/{name}": scores, f"labels/{name}": truth, "epoch": 1, "step": 2}
        np.savez(tmp_path / f"scores_{epoch}.npz", **stored)
    config = dataclasses.replace(Config(), data=dataclasses.replace(Config().data, name="people"))
    history = [
        {"phase": "train", "stage": "head", "step": 1, "loss": 1.0},
        {"phase": "eval", "stage": "head", "step": 1, f"{name}/loss": 1.0},
    ]
    report = write_report(tmp_path, config, [task], Faces(labels), history, "made up", "python run.py")
    assert (report["command"], report["profile"]) == ("python run.py", "auto")
    figures = report["last"]["tasks"][name]
    whole = figures["mae" if task.kind == "age" else "accuracy"]
    assert (whole < 25) if task.kind == "age" else (0.5 < whole < 1)
    assert {found["attribute"] for found in figures["groups"]} == {"gender", "ethnicity", "age", "gender, ethnicity"}
    for found in figures["groups"]:
        number = sum(group["n"] for group in found["groups"])
        assert number == figures["n"] == RECORDS - 2
        mean = sum(group["n"] * group["value"] for group in found["groups"]) / number
        assert mean == pytest.approx(whole)
