"""The figures of a report."""

import matplotlib.figure
import matplotlib.patches
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from experiments.protocols import lfw
from facejax.data.source import FaceSource
from facejax.evals import figures
from facejax.evals.calibration import reliability
from facejax.evals.tasks import AgeResult, RegressionResult, evaluate_task
from facejax.evals.verification import verify
from facejax.tasks import TASKS


class Photos(FaceSource):
    """Photos that are all black."""

    def __init__(self):
        pass

    def read(self, index):
        return {"image": np.zeros((8, 8, 3), np.uint8)}


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are drawn, by file name, in place of files."""
    kept = {}
    monkeypatch.setattr(figures, "_save", lambda figure, path: kept.setdefault(path.name, figure))
    return kept


def test_a_reliability_diagram_shows_every_bin(drawn, tmp_path):
    rng = np.random.default_rng(0)
    result = reliability(rng.dirichlet(np.ones(4) * 0.5, 500), rng.integers(0, 4, 500))
    figures.draw_calibration(tmp_path / "calibration.png", {"best": result, "last": result})
    axes, _ = drawn["calibration.png"].axes
    (outline,) = (patch for patch in axes.patches if isinstance(patch, matplotlib.patches.StepPatch))
    np.testing.assert_allclose(outline.get_data().values, result.counts / 500)  # the last bin too
    np.testing.assert_allclose(outline.get_data().edges, result.edges)
    bars = [patch.get_bbox().extents for patch in axes.patches if isinstance(patch, matplotlib.patches.Rectangle)]
    corners = [result.edges[:-1], np.zeros(15), result.edges[1:], np.nan_to_num(result.accuracy)]
    np.testing.assert_allclose(bars, np.stack(corners, axis=1), atol=1e-12)


def roc_of(similarity, same):
    return verify(np.array(similarity), np.array(same), np.arange(len(same)) // 2 % 2)


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
        lfw._draw(tmp_path / "roc.png", {"centre": roc_of([0.9, 0.1, 0.8, 0.2], [True, False, True, False])})
    for name in ("curves.png", "roc.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_curves_are_smoothed_over_the_last_values():
    values = np.random.default_rng(0).normal(size=9)
    smoothed = figures._smooth(values.tolist(), 4)
    np.testing.assert_allclose(smoothed[3:], np.convolve(values, np.full(4, 1 / 4), "valid"))
    np.testing.assert_allclose(smoothed[:3], np.cumsum(values)[:3] / (1, 2, 3))


def test_titles_stay_within_their_panels(drawn, tmp_path):
    """However long the result: 300,000 photos, all of them right, or values that are far off."""
    path, rng = tmp_path / "task.png", np.random.default_rng(0)
    right = evaluate_task(TASKS["emotion8"], np.tile(np.eye(8, dtype=np.float32), (37500, 1)), np.arange(300000) % 8)
    far = RegressionResult(("valence", "arousal"), -1000 * rng.random((300000, 2)), rng.random((300000, 2)))
    for name, result in (("emotion8", right), ("valence_arousal", far)):
        drawn.clear()
        figures.draw_result(path, TASKS[name], {"best": result, "last": result})
        canvas = FigureCanvasAgg(drawn["task.png"])
        canvas.draw()
        width, height = canvas.get_width_height()
        for panel, axes in enumerate(drawn["task.png"].axes):
            box = axes.title.get_window_extent()
            assert panel * width / 2 < box.x0 < box.x1 < (panel + 1) * width / 2
            assert box.y1 < height
            assert axes.get_title().endswith("(n=300000)")


@pytest.mark.parametrize(("photos", "rows"), [(0, 1), (9, 1), (12, 1), (13, 2), (48, 4), (100, 4)])
def test_a_sheet_of_crops_has_the_rows_that_it_needs(photos, rows, drawn, tmp_path):
    labels = np.concatenate([np.zeros(photos, np.int64), [-1]])  # one more, without a label
    figures.draw_crops(tmp_path / "crops.png", TASKS["gender"], Photos(), np.full((photos + 1, 2), 0.5), labels)
    figure = drawn["crops.png"]
    assert sum(bool(axes.images) for axes in figure.axes) == min(photos, 48)
    assert figure.axes[0].get_gridspec().nrows == rows
    assert figure.get_figheight() == pytest.approx(rows * 1.95)
    assert ("no photo" in figure.get_suptitle()) == (photos == 0)


def test_crops_are_green_within_five_years_or_a_quarter(drawn, tmp_path):
    ages = np.eye(100, dtype=np.float32)[np.full(4, 39)]
    figures.draw_crops(tmp_path / "age.png", TASKS["age"], Photos(), ages, np.array([34, 35, 45, 46]))
    values = np.array([[-1e-4, 0.25], [0.3, 0.0]], np.float32)
    figures.draw_crops(tmp_path / "va.png", TASKS["valence_arousal"], Photos(), values, np.zeros((2, 2), np.float32))
    colours = {axes.get_title(): axes.title.get_color() for figure in drawn.values() for axes in figure.axes}
    del colours[""]  # places without a photo
    assert colours == {
        "34\n→ 40": "red",
        "35\n→ 40": "green",
        "45\n→ 40": "green",
        "46\n→ 40": "red",
        "+0.00 +0.00\n→ +0.00 +0.25": "green",
        "+0.00 +0.00\n→ +0.30 +0.00": "red",
    }


@pytest.mark.parametrize(("oldest", "least", "most"), [(41, 100, 100), (116, 117, 125)])
def test_every_age_is_within_the_axes(oldest, least, most, drawn, tmp_path):
    ages, predicted = np.array([5, oldest]), np.array([8, 96])
    result = AgeResult(ages, predicted - ages, 0)
    figures.draw_result(tmp_path / "age.png", TASKS["age"], {"best": result, "last": result})
    for axes in drawn["age.png"].axes:
        np.testing.assert_array_equal(axes.lines[0].get_xydata(), np.stack([ages, predicted], axis=1))
        for low, high in (axes.get_xlim(), axes.get_ylim()):
            assert low == 0
            assert least <= high <= most


def test_a_roc_curve_shows_what_its_pairs_can_and_is_not_hidden_by_the_frame(monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    same = [True, False] * 6  # 6 pairs of different people: a sixth is the lowest rate
    perfect, partly = np.where(same, 0.9, 0.1) + np.arange(12) / 100, np.arange(12) / 10
    lfw._draw(tmp_path / "roc.png", {"mtcnn": roc_of(perfect, same), "centre": roc_of(partly, same)})
    (axes,) = drawn[0].axes
    assert axes.lines[0].get_label() == "mtcnn, AUC 1.0000"
    assert axes.get_ylim()[1] > 1
    assert 1 / 7 < axes.get_xlim()[0] < 1 / 6
    assert 1 < axes.get_xlim()[1] < 1.1
