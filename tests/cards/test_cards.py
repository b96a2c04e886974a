"""Every published weight has a card and every dataset a row in the register; a run's card matches its report."""

import copy
import dataclasses
import json
import pathlib

import numpy as np
import pytest

from facejax.cards.card import CARD, commercial, describe_outputs, model_card, read_card, write_card
from facejax.cards.detector import TRAINING_DATA
from facejax.cards.pages import cards_page, licences_page
from facejax.cards.published import MEASURED
from facejax.cards.terms import CONSEQUENCES, data_terms, list_terms
from facejax.datasets.registry import get_dataset, list_datasets
from facejax.evals.fairness import by_group
from facejax.inference import load_model
from facejax.models import PretrainedCfg, list_models, pretrained_cfg
from tests.inference.toy import toy_model

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize("name", list_models(pretrained=True))
def test_every_published_weight_has_a_card(name):
    cfg = pretrained_cfg(name)
    assert cfg.training_data, f"{name}: say in training_data what it was trained on"
    assert set(cfg.training_data) <= set(list_terms())
    assert f"\n## {name}\n" in (ROOT / "docs" / "model_cards.md").read_text()
    card = model_card(cfg)
    for part in (cfg.licence, cfg.source, "## Use", "## Data", "## Measured", "## Limits", "Not for"):
        assert part in card
    assert all(f"`{name}`" in card for name in cfg.training_data)
    assert ("Art. 5(1)(f)" in card) == any(task.startswith(("emotion", "valence")) for task in cfg.tasks)


@pytest.mark.parametrize("name", list_datasets())
def test_every_data_set_has_a_row(name):
    reader, terms = get_dataset(name), data_terms(name)
    assert (terms.licence, terms.url, terms.commercial) == (reader.licence, reader.url, reader.commercial)
    (row,) = [line for line in (ROOT / "docs" / "licences.md").read_text().splitlines() if f"| `{name}` |" in line]
    assert reader.licence in row
    assert reader.url in row
    assert f"| {reader.commercial} |" in row
    # The cautious reading: only people may be used commercially.
    assert (reader.commercial == "yes") == (name == "people")


def test_the_pages_are_those_of_the_package():
    for name, page in (("model_cards.md", cards_page()), ("licences.md", licences_page())):
        assert (ROOT / "docs" / name).read_text() == page, "python tools/make_model_cards.py"


def test_figures_of_cards_are_those_of_the_results():
    """Cards quote figures from experiments/results/README.md, the record."""
    record = (ROOT / "experiments" / "results" / "README.md").read_text()
    for name, rows in MEASURED.items():
        assert name in list_models(pretrained=True)
        for row in rows:
            number = row.value.split()[0]
            assert not number[0].isdigit() or number.rstrip(",") in record, row
    assert set(TRAINING_DATA) <= set(list_terms())


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (("people",), "yes"),
        (("people", "lfw"), "unclear"),
        (("people", "lfw", "vggface2"), "no"),
        ((), "unclear"),
        (("somebody's",), "unclear"),
    ],
)
def test_the_strictest_terms_decide(data, word):
    assert commercial(PretrainedCfg("mobilenet_v1", training_data=data)) == (word, CONSEQUENCES[word])


def test_weights_of_a_file_without_address_are_not_called_trained_here():
    cfg = PretrainedCfg("senet50", sha256="0" * 64)
    assert "| source | converted from a file, source not recorded |" in model_card(cfg)
    assert "| source | trained with facejax |" in model_card(dataclasses.replace(cfg, sha256=""))


def test_what_an_imagenet_base_tells():
    assert "nothing about faces" in describe_outputs(pretrained_cfg("resnet18.a1_in1k"))
    assert describe_outputs(pretrained_cfg("mobilenet_v1")) == "features only"
    assert describe_outputs(toy_model("age", "emotion7").cfg) == "perceived age, expression (7)"


REPORT = {
    "data": "facial_expressions",
    "best": {
        "epoch": 9,
        "dataset": "facial_expressions",
        "split": "validation",
        "tasks": {
            "emotion8": {
                "n": 682,
                "accuracy": 0.739,
                "interval95": [0.7048, 0.7706],
                "balanced_accuracy": 0.3666,
                "per_class": {"anger": {"n": 27, "recall": 0.37}, "fear": {"n": 0, "recall": None}},
                "calibration": {"ece": 0.051},
                "groups": [
                    {
                        "metric": "emotion8 accuracy",
                        "attribute": "gender",
                        "higher_is_better": True,
                        "groups": [
                            {"name": "female", "n": 132, "clusters": 99, "value": 0.8, "interval95": [0.7, 0.9]},
                            {"name": "male", "n": 465, "clusters": 294, "value": 0.7, "interval95": [0.6, 0.8]},
                        ],
                        "worst": "male",
                        "gap": 0.1,
                        "gap_interval95": [0.02, 0.18],
                    }
                ],
            },
            "age": {"n": 10, "mae": 4.5, "accuracy": 0.1},
            "valence_arousal": {"n": 9, "ccc_valence": -0.0001, "ccc_valence_interval95": [-0.2, 0.31], "ccc": 0.25},
        },
    },
}


def test_a_runs_card_says_what_its_report_says(tmp_path):
    cfg = toy_model("emotion8", "age").cfg
    card = model_card(cfg, REPORT)
    data = "| facial_expressions, validation |"
    for row in (
        f"| emotion8 accuracy % {data} 682 | 73.90 [70.48, 77.06] |",
        f"| emotion8 balanced accuracy % {data} 682 | 36.66 |",
        f"| emotion8 recall %, anger {data} 27 | 37.00 |",
        f"| emotion8 recall %, fear {data} 0 | - |",
        f"| emotion8 accuracy, gender female {data} 132 photos of 99 people | 80.00 [70.00, 90.00] |",
        f"| emotion8 accuracy, gap by gender {data} 597 | 10.00 [2.00, 18.00], worst group: male |",
        f"| age, mean absolute error in years {data} 10 | 4.50 |",
        f"| valence_arousal ccc valence {data} 9 | 0.000 [-0.200, 0.310] |",
        f"| valence_arousal ccc {data} 9 | 0.250 |",
        "Epoch 9 (best)",
        "figures are optimistic",
    ):
        assert row in card
    for name, words in (
        ("people (built-in, rendered)", "rendered heads: the figures say nothing"),
        ("lfw+people", "Partly trained on rendered heads"),
        ("people+lfw", "Partly trained on rendered heads"),
    ):
        assert words in model_card(cfg, {**REPORT, "data": name})
    assert "rendered heads" not in card
    write_card(tmp_path, card)
    assert read_card(tmp_path) == card
    assert [path.name for path in tmp_path.iterdir()] == [CARD]
    (tmp_path / CARD).write_bytes(b"x" * (1 << 21))
    assert read_card(tmp_path) is None


def test_a_card_is_of_its_epoch():
    report = copy.deepcopy(REPORT)
    report["last"] = copy.deepcopy(report["best"]) | {"epoch": 12}
    report["last"]["tasks"]["emotion8"]["accuracy"] = 0.7
    cfg = toy_model("emotion8", "age").cfg
    best, last = (model_card(cfg, report, epoch) for epoch in ("best", "last"))
    assert ("Epoch 9 (best)" in best, "| 73.90 [" in best, "optimistic" in best) == (True, True, True)
    assert ("Epoch 12 (last)" in last, "| 70.00 [" in last, "optimistic" in last) == (True, True, False)
    assert "| emotion8 expected calibration error % | facial_expressions, validation | 682 | 5.10 |" in best


def test_errors_by_group_are_in_years():
    report, group = copy.deepcopy(REPORT), {"interval95": [4.0, 6.0], "n": 9, "clusters": 9}
    report["best"]["tasks"]["age"]["groups"] = [
        {
            "metric": "age, mean absolute error in years",
            "attribute": "gender",
            "higher_is_better": False,
            "groups": [
                {"name": "female", "value": 5.0, **group},
                {"name": "male", "value": 4.5, **group, "clusters": None},
            ],
            "worst": "female",
            "gap": 0.5,
            "gap_interval95": [0.1, 0.9],
        }
    ]
    card = model_card(toy_model("age").cfg, report)
    assert "gender female | facial_expressions, validation | 9 photos of 9 people | 5.00 [4.00, 6.00] |" in card
    assert "gender male | facial_expressions, validation | 9 photos | 4.50 [4.00, 6.00] |" in card
    assert "gap by gender | facial_expressions, validation | 18 | 0.50 [0.10, 0.90], worst group: female |" in card


def test_a_group_of_one_person_has_no_interval():
    right = np.arange(12) % 2
    group = by_group(
        "emotion8 accuracy",
        lambda records: float(right[records].mean()),
        "gender",
        np.repeat([0, 1], [8, 4]),
        ("female", "male"),
        clusters=np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]),
    ).to_dict()
    report = copy.deepcopy(REPORT)
    report["best"]["tasks"]["emotion8"]["groups"] = [group]
    card = model_card(toy_model("emotion8", "age").cfg, json.loads(json.dumps(report)))
    assert "gender female | facial_expressions, validation | 8 photos of 2 people | 50.00 (not compared) |" in card
    assert "gender male | facial_expressions, validation | 4 photos of 1 people | 50.00 (not compared) |" in card


def test_a_card_travels_with_the_weights(tmp_path):
    from facejax.weights.checkpoint import save_inference_checkpoint

    model = toy_model("gender")
    save_inference_checkpoint(tmp_path / "a", model.variables, model.cfg)
    assert load_model(tmp_path / "a").card == model_card(model.cfg) == model.card
    save_inference_checkpoint(tmp_path / "a", model.variables, model.cfg, "measured")
    assert load_model(tmp_path / "a").card == "measured"
    (tmp_path / "a" / CARD).unlink()
    assert load_model(tmp_path / "a").card == model_card(model.cfg)
    assert json.loads((tmp_path / "a" / "model.json").read_text())["training_data"] == []
