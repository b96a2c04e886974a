"""The report of every kind of head, from made-up scores."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from sklearn import metrics

from experiments.run import load_config
from facejax.config import Config, PaperResult
from facejax.data.source import FaceSource
from facejax.evals import figures, report
from facejax.evals.bootstrap import accuracy_interval
from facejax.evals.calibration import reliability
from facejax.evals.report import write_report
from facejax.tasks import EMOTION8, TASKS
from facejax.train.step import scores as step_scores

RECORDS = 80
HISTORY = [{"phase": "train", "stage": "head", "step": 1, "loss": 1.0}]


class Faces(FaceSource):
    """What the report needs from an evaluation split."""

    def __init__(self, labels):
        self._labels = labels
        self.fields = self.label_keys = list(labels)

    def labels(self, key):
        return self._labels[key]

    def read(self, index):
        return {"image": np.full((8, 8, 3), index, np.uint8)}

    def __len__(self):
        return RECORDS


@pytest.fixture(autouse=True)
def small_sheets(monkeypatch):
    """A sheet of 48 crops takes Matplotlib a second."""
    monkeypatch.setattr(figures, "CROPS", 6)


@pytest.fixture
def no_pictures(monkeypatch):
    """For what is written: every kind of task is drawn in the other tests."""
    for name in ("draw_calibration", "draw_crops", "draw_curves", "draw_result"):
        monkeypatch.setattr(report, name, lambda *args: None)


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
    written = write_report(tmp_path, config, [task], Faces(labels), history, "made up", "python run.py")
    assert (written["command"], written["profile"]) == ("python run.py", "auto")
    result = written["last"]["tasks"][name]
    whole = result["mae" if task.kind == "age" else "accuracy"]
    assert (whole < 25) if task.kind == "age" else (0.5 < whole < 1)
    assert {found["attribute"] for found in result["groups"]} == {"gender", "ethnicity", "age", "gender, ethnicity"}
    if name == "emotion8":
        readable = (truth >= 0) & np.isfinite(scores[:, 0])
        assert result["seven_from_eight"]["n"] == (readable & (truth != EMOTION8.index("contempt"))).sum()
    for found in result["groups"]:
        if found["attribute"] == "gender":
            known = np.isfinite(scores[:, 0]) & (truth >= 0)
            persons = [len(set(labels["person"][known & (labels["gender"] == sex)])) for sex in (0, 1)]
            assert [group["clusters"] for group in found["groups"]] == persons
        number = sum(group["n"] for group in found["groups"])
        assert number == result["n"] == RECORDS - 2
        mean = sum(group["n"] * group["value"] for group in found["groups"]) / number
        assert mean == pytest.approx(whole)


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(
    ("name", "comparable", "words"),
    [
        ("affectnet", True, None),
        ("affectnet", False, "This run is on a part of affectnet: the numbers cannot be compared."),
        ("people", False, "This run is on people, not on affectnet: the numbers cannot be compared."),
    ],
)
def test_the_report_says_where_the_paper_s_number_is_of_something_else(name, comparable, words, labels, tmp_path):
    scores = np.full((RECORDS, 8), 1 / 8, np.float32)
    for epoch in ("best", "last"):
        stored = {"scores/emotion8": scores, "labels/emotion8": labels["emotion"], "epoch": 1, "step": 2}
        np.savez(tmp_path / f"scores_{epoch}.npz", **stored)
    config = dataclasses.replace(
        Config(),
        data=dataclasses.replace(Config().data, name=name),
        paper=PaperResult("Table 2", "EfficientNet-B0", "affectnet", accuracy=61.32),
    )
    found = write_report(tmp_path, config, [TASKS["emotion8"]], Faces(labels), HISTORY, name, "", comparable)
    assert found["paper"]["comparable"] == comparable
    text = (tmp_path / "report.md").read_text()
    assert "Paper, Table 2, EfficientNet-B0, on affectnet: emotion8 61.32 %." in text
    assert (words in text) if words else ("cannot be compared" not in text)


def test_what_is_said_of_the_best_epoch_is_not_said_of_the_last(labels, monkeypatch, tmp_path):
    """Table of classes, confusion matrices, crops and groups, each of the epoch that its heading names."""
    truth, rng = labels["emotion"], np.random.default_rng(2)
    scores = {"best": np.eye(8)[np.where(rng.random(RECORDS) < 0.6, truth, rng.integers(0, 8, RECORDS))]}
    scores["last"] = np.eye(8)[rng.integers(0, 8, RECORDS)]
    for number, (epoch, rows) in enumerate(scores.items()):
        stored = {"scores/emotion8": rows.astype(np.float32), "labels/emotion8": truth, "epoch": number, "step": number}
        np.savez(tmp_path / f"scores_{epoch}.npz", **stored)
    drawn = {}
    monkeypatch.setattr(figures, "_save", lambda figure, path: drawn.setdefault(path.name, figure))
    monkeypatch.setattr(figures, "CROPS", 24)
    config = dataclasses.replace(Config(), data=dataclasses.replace(Config().data, name="people"))
    write_report(tmp_path, config, [TASKS["emotion8"]], Faces(labels), HISTORY, "toy")
    text = (tmp_path / "report.md").read_text()
    said = {epoch: rows.argmax(axis=1) for epoch, rows in scores.items()}
    recalls = [metrics.recall_score(truth, said[epoch], average=None) for epoch in ("best", "last")]
    for index, name in enumerate(EMOTION8):
        best, last = (f"{100 * recall[index]:.1f}" for recall in recalls)
        assert f"| {name} | {(truth == index).sum()} | {best} | {last} |" in text
    for axes, epoch in zip(drawn["emotion8.png"].axes, ("best", "last"), strict=True):
        assert axes.get_title().startswith(f"{epoch} epoch")
        counts = metrics.confusion_matrix(truth, said[epoch])
        assert {tuple(map(int, told.get_position())): int(told.get_text()) for told in axes.texts} == {
            (predicted, true): counts[true, predicted] for true in range(8) for predicted in range(8)
        }
    shown = [axes for axes in drawn["emotion8_crops.png"].axes if axes.images]
    assert len(shown) == 24
    for axes in shown:
        record = int(axes.images[0].get_array()[0, 0, 0])
        names = EMOTION8[truth[record]], EMOTION8[said["best"][record]]
        assert axes.get_title() == f"{names[0]}\n→ {names[1]} 1.00"
        assert axes.title.get_color() == ("green" if names[0] == names[1] else "red")
    women = labels["gender"] == 0
    accuracy = (said["last"] == truth)[women].mean()
    assert f"| female | {women.sum()} | {len(set(labels['person'][women]))} | {100 * accuracy:.2f} [" in text


@pytest.mark.usefixtures("no_pictures")
def test_errors_in_years_are_no_percentages(labels, tmp_path):
    scores = np.eye(100, dtype=np.float32)[np.full(RECORDS, 39)]
    for epoch in ("best", "last"):
        stored = {"scores/age": scores, "labels/age": labels["age"], "epoch": 1, "step": 2}
        np.savez(tmp_path / f"scores_{epoch}.npz", **stored)
    write_report(tmp_path, Config(), [TASKS["age"]], Faces(labels), HISTORY, "toy")
    women = labels["gender"] == 0
    error = np.abs(40 - labels["age"])[women].mean()
    assert (
        f"| female | {women.sum()} | {len(set(labels['person'][women]))} | {error:.2f} ["
        in (tmp_path / "report.md").read_text()
    )


@pytest.mark.usefixtures("no_pictures")
def test_intervals_draw_persons_where_they_are_known(labels, tmp_path):
    """Ten people, each always right or always wrong: wider than eighty independent photos would be."""
    persons = np.repeat(np.arange(10), RECORDS // 10)
    truth = np.arange(RECORDS) % 8
    said = np.where(persons % 2 == 0, truth, (truth + 1) % 8)
    scores = np.eye(8, dtype=np.float32)[said]
    widths = {}
    for name, known in (("photos", {}), ("persons", {"person": persons})):
        (tmp_path / name).mkdir()
        written = report_of_scores(tmp_path / name, scores, truth, {"emotion": truth, **known})
        result = written["last"]["tasks"]["emotion8"]
        widths[name] = [np.ptp(one["interval95"]) for one in (result, result["seven_from_eight"])]
        text = (tmp_path / name / "report.md").read_text()
        assert ("bootstrap over people" in text) == (name == "persons")
    assert min(np.array(widths["persons"]) / widths["photos"]) > 2


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("name", ["emotion8", "age"])
def test_records_that_do_not_count_move_no_figure(name, labels, tmp_path):
    task, rng = TASKS[name], np.random.default_rng(3)
    scores = rng.dirichlet(np.ones(task.num_outputs), RECORDS).astype(np.float32)
    truth = labels[task.label_key].copy()
    scores[::7], truth[::5] = np.nan, -1
    counts = np.isfinite(scores[:, 0]) & (truth >= 0)
    found = []
    for folder, chosen in (("all", slice(None)), ("some", counts)):
        (tmp_path / folder).mkdir()
        some = Faces({"person": labels["person"][chosen]})
        for epoch in ("best", "last"):
            stored = {f"scores/{name}": scores[chosen], f"labels/{name}": truth[chosen], "epoch": 1, "step": 2}
            np.savez(tmp_path / folder / f"scores_{epoch}.npz", **stored)
        written = write_report(tmp_path / folder, Config(), [task], some, HISTORY, "toy")
        found.append(written["last"]["tasks"][name])
    assert found[0] == found[1]
    if name == "emotion8":
        assert found[0]["calibration"] == reliability(scores[counts], truth[counts], bins=15).to_dict()
        kept = counts & (truth != EMOTION8.index("contempt"))
        said = np.where(np.arange(8) == EMOTION8.index("contempt"), -1, np.nan_to_num(scores)).argmax(axis=1)
        expected = accuracy_interval(said == truth, np.flatnonzero(kept), labels["person"][kept])
        assert found[0]["seven_from_eight"]["interval95"] == list(expected)


@pytest.mark.usefixtures("no_pictures")
def test_photos_of_nobody_are_drawn_one_by_one(tmp_path):
    truth = np.arange(RECORDS) % 8
    scores = np.eye(8, dtype=np.float32)[np.where(np.arange(RECORDS) % 3 == 0, truth, 0)]
    nobody, each = (
        report_of_scores(tmp_path, scores, truth, {"emotion": truth, "person": person})["last"]["tasks"]["emotion8"]
        for person in (np.full(RECORDS, ""), np.arange(RECORDS))
    )
    assert nobody["interval95"] == each["interval95"]
    assert nobody["interval95"][0] < nobody["accuracy"] < nobody["interval95"][1]


def test_truth_is_across_and_what_is_said_is_up(labels, monkeypatch, tmp_path):
    drawn, rng = {}, np.random.default_rng(4)
    monkeypatch.setattr(figures, "_save", lambda figure, path: drawn.setdefault(path.name, figure))
    values = rng.uniform(-1, 1, (2, RECORDS, 2)).astype(np.float32)
    arrays = {"scores/age": np.tile(np.eye(100, dtype=np.float32)[39], (RECORDS, 1)), "labels/age": labels["age"]}
    arrays |= {"scores/valence_arousal": values[0], "labels/valence_arousal": values[1]}
    for epoch in ("best", "last"):
        np.savez(tmp_path / f"scores_{epoch}.npz", **arrays, epoch=1, step=2)
    tasks = [TASKS["age"], TASKS["valence_arousal"]]
    write_report(tmp_path, Config(), tasks, Faces({"age": labels["age"]}), HISTORY, "toy")
    points = drawn["age.png"].axes[0].lines[0]
    np.testing.assert_allclose(points.get_xydata(), [[age, 40] for age in labels["age"]])
    for index, points in enumerate(drawn["valence_arousal.png"].axes[0].lines[:2]):
        np.testing.assert_allclose(points.get_xydata(), values[::-1, :, index].T)


def test_crops_are_right_within_five_years_or_a_quarter():
    age, values = TASKS["age"], TASKS["valence_arousal"]
    forty = np.eye(100, dtype=np.float32)[39]
    assert figures._caption(age, forty, 35) == ("35\n→ 40", True)
    assert figures._caption(age, forty, 34) == ("34\n→ 40", False)
    said = np.array([0.5, -0.25])
    assert figures._caption(values, said, np.array([0.25, 0.0])) == ("+0.25 +0.00\n→ +0.50 -0.25", True)
    assert not figures._caption(values, said, np.array([0.5, 0.25]))[1]


def lines_of(folder, start):
    """What report.md says of the best and of the last epoch in the line that starts so."""
    (line,) = [line for line in (folder / "report.md").read_text().splitlines() if line.startswith(start)]
    return line.removeprefix(start).removesuffix(".").removeprefix(" best epoch ").split(", last ")


def test_ranks_have_an_interval_over_photos_or_people(tmp_path):
    """Twenty people with four photos each, of whom every third is recognised."""
    persons = np.repeat(np.arange(20), 4)
    scores = np.where(persons % 3 == 0, persons, 99)[:, None] + np.array([0.0, 100, 200, 300, 400])
    for name, known in (("photos", {}), ("people", {"person": persons})):
        (tmp_path / name).mkdir()
        written = report_of_scores(tmp_path / name, scores, persons, {"identity": persons, **known}, "identity")
        low, high = written["last"]["tasks"]["identity"]["interval95"]
        by = ", bootstrap over people" if known else ""
        said = lines_of(tmp_path / name, f"Rank-1 accuracy % [95 % interval{by}]:")
        assert said == [f"35.00 [{100 * low:.2f}, {100 * high:.2f}]"] * 2
        if known:  # whole people are right or wrong: their number is binomial
            assert (low, high) == pytest.approx(scipy.stats.binom.ppf([0.025, 0.975], 20, 0.35) / 20, abs=0.051)
        else:
            exact = scipy.stats.binomtest(28, 80).proportion_ci(method="wilson")
            assert (low, high) == pytest.approx((exact.low, exact.high))


@pytest.mark.usefixtures("no_pictures")
def test_errors_in_years_have_an_interval(tmp_path):
    truth = np.arange(RECORDS) % 50 + 1
    scores = np.eye(100, dtype=np.float32)[truth - 1 + np.arange(RECORDS) % 7]
    report_of_scores(tmp_path, scores, truth, {"age": truth}, "age")
    errors = np.arange(RECORDS) % 7
    low, high = scipy.stats.norm.interval(0.95, errors.mean(), scipy.stats.sem(errors))
    said = lines_of(tmp_path, "Mean absolute error in years [95 % interval]:")
    assert said == [f"{errors.mean():.2f} [{low:.2f}, {high:.2f}]"] * 2
    assert "green where the two agree within 5 years" in (tmp_path / "report.md").read_text()


def test_concordances_have_an_interval_over_photos_or_people(tmp_path):
    """As SciPy's; with four copies of each photo, people must be drawn to give the same."""
    rng = np.random.default_rng(0)
    truth = rng.uniform(-1, 1, (20, 2)).astype(np.float32)
    scores = (0.7 * truth + rng.normal(size=(20, 2)) * [0.1, 0.5]).astype(np.float32)

    def concordance(x, y):
        return 2 * np.cov(x, y, bias=True)[0, 1] / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)

    for name, copies in (("photos", 1), ("people", 4)):
        (tmp_path / name).mkdir()
        known = {"person": np.repeat(np.arange(20), copies)} if copies > 1 else {}
        x, y = np.repeat(scores, copies, axis=0), np.repeat(truth, copies, axis=0)
        x[-copies:] = np.nan  # a photo, or all those of a person, could not be read
        written = report_of_scores(tmp_path / name, x, y, {"valence_arousal": y, **known}, "valence_arousal")
        for column, value in enumerate(("valence", "arousal")):
            pairs = (scores[:-1, column].astype(float), truth[:-1, column].astype(float))
            expected = scipy.stats.bootstrap(
                pairs, concordance, paired=True, vectorized=False, n_resamples=2000, method="percentile", rng=1
            ).confidence_interval
            low, high = written["last"]["tasks"]["valence_arousal"][f"ccc_{value}_interval95"]
            assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.06)
            by = ", bootstrap over people" if known else ""
            said = lines_of(tmp_path / name, f"Concordance of {value} [95 % interval{by}]:")
            assert said == [f"{concordance(*pairs):.3f} [{low:.3f}, {high:.3f}]"] * 2
    assert "green where the two agree within 0.25" in (tmp_path / "photos/report.md").read_text()


@pytest.mark.usefixtures("no_pictures")
def test_the_paper_s_concordances_are_quoted(tmp_path):
    paper = load_config("multitask_b0").paper
    truth = np.arange(RECORDS) % 8
    report_of_scores(tmp_path, np.eye(8)[truth], truth, {"emotion": truth}, paper=paper)
    numbers = "emotion8 61.93 %, 7 classes 64.94 %, CCC of valence 0.594, CCC of arousal 0.549."
    assert f"EmotiEffLib, enet_b0_8_va_mtl, on affectnet: {numbers}" in (tmp_path / "report.md").read_text()


@pytest.mark.usefixtures("no_pictures")
def test_a_model_that_says_one_class_of_everybody_is_told(tmp_path):
    truth = np.arange(RECORDS) % 8
    scores = np.tile(np.eye(8, dtype=np.float32)[4], (RECORDS, 1))
    report_of_scores(tmp_path, scores, truth, {"emotion": truth})
    text = (tmp_path / "report.md").read_text()
    assert "**The best epoch predicts `happiness` for every record.**" in text
    assert "--config.select=balanced_accuracy" in text


def report_of_scores(folder, scores, truth, labels, task="emotion8", paper=PaperResult()):  # noqa: B008
    for name in ("best", "last"):
        arrays = {f"scores/{task}": scores, f"labels/{task}": truth}
        np.savez(folder / f"scores_{name}.npz", step=1, epoch=1, **arrays)
    return write_report(folder, Config(paper=paper), [TASKS[task]], Faces(labels), HISTORY, "toy")
