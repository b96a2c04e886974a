"""The figures of a report."""

from types import SimpleNamespace

import matplotlib.figure
import numpy as np

from experiments.protocols import lfw
from facejax.evals import figures


def test_each_task_has_a_panel_of_curves_of_its_own(monkeypatch, tmp_path):
    learnt = {"emotion8/accuracy": 0.5, "age/accuracy": 0.1, "valence_arousal/ccc": -0.3}
    history = [{"phase": "train", "stage": "full", "step": s, "loss": 2.0 - s, **learnt} for s in (1, 2)]
    scores = {"emotion8/accuracy": 0.4, "emotion8/n": 9, "age/mae": 12.0, "age/rmse": 15.0, "age/class_accuracy": 0.1}
    scores |= {"valence_arousal/ccc_valence": -0.2, "valence_arousal/rmse_valence": 0.4}
    history += [{"phase": "eval", "stage": "full", "step": step, **scores} for step in (1, 2)]
    drawn = []
    monkeypatch.setattr(figures, "_save", lambda figure, path: drawn.append(figure))
    figures.draw_curves(tmp_path / "curves.png", history)
    loss, emotion, age, values, *_ = drawn[0].axes
    assert [line.get_label() for line in loss.lines] == ["full stage"]
    assert [line.get_label() for line in emotion.lines] == ["accuracy in training, full stage", "accuracy"]
    assert [(line.get_label(), *line.get_ydata()) for line in age.lines] == [("mae", 12.0, 12.0)]
    assert [line.get_label() for line in values.lines] == ["ccc in training, full stage", "ccc valence"]
    assert [axes.get_ylabel() for axes in (emotion, age, values)] == [
        "fraction",
        "mean absolute error, years",
        "concordance",
    ]
    assert values.get_ylim()[0] < -0.3


def test_a_picture_is_what_its_name_says_whatever_matplotlibrc_prefers(tmp_path):
    with matplotlib.rc_context({"savefig.format": "pdf"}):
        figures._save(matplotlib.figure.Figure(), tmp_path / "curves.png")
        lfw._draw(tmp_path / "roc.png", {"centre": SimpleNamespace(false_acceptance=[1], true_acceptance=[1], auc=1)})
    for name in ("curves.png", "roc.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_curves_are_smoothed_over_the_last_values():
    values = np.random.default_rng(0).normal(size=9)
    smoothed = figures._smooth(values.tolist(), 4)
    np.testing.assert_allclose(smoothed[3:], np.convolve(values, np.full(4, 1 / 4), "valid"))
    np.testing.assert_allclose(smoothed[:3], np.cumsum(values)[:3] / (1, 2, 3))
