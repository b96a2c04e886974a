"""Measures what the built-in dataset is worth: a linear probe, a trained network, and both on real photos.

    python experiments/run.py --config people_b0 --data_dir data
    python experiments/people_study.py --people data/people2_18000_1200x3 --model workdirs/people_b0/best --real data

The probe is scikit-learn's logistic regression (ridge for ages and values) on the pixels of 48 px grey crops, fitted on
the train split of `people`; the network is evaluated on the same records. Neither has seen the people of the validation
split. On the real photos (`facial_expressions`, prepared in the folder given by ``--real``) both predict from what they
learnt on rendered people alone. Prints the two tables of docs/people.md.
"""

import argparse
import pathlib
import sys

import numpy as np
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from facejax import load_model  # noqa: E402
from facejax.config import ConfigError  # noqa: E402
from facejax.data.loader import eval_batches  # noqa: E402
from facejax.data.source import FaceSource  # noqa: E402
from facejax.evals.tasks import RegressionResult  # noqa: E402
from facejax.preprocessing import Preprocessing  # noqa: E402
from facejax.tasks import EMOTION8, TASKS, Task  # noqa: E402

PIXELS = Preprocessing(image_size=48)
# Real photos: title and expressions of each subset.
EXPRESSIONS = {
    "happiness, neutral": ("happiness", "neutral"),
    "and surprise": ("happiness", "neutral", "surprise"),
    "and anger, sadness": ("happiness", "neutral", "surprise", "anger", "sadness"),
    "all eight": EMOTION8,
}


def crops(source: FaceSource) -> list[np.ndarray]:
    """All crops of a split, uint8 RGB."""
    return [source.read(index)["image"] for index in range(len(source))]


def grey_pixels(source: FaceSource) -> np.ndarray:
    """(records, 2304) grey values in [0, 1] of 48 px crops."""
    images = [batch["image"][batch["mask"] > 0] for batch in eval_batches(source, PIXELS, 64)]
    return np.concatenate(images).mean(axis=3).reshape(len(source), -1) / 255


def score(task: Task, predicted: np.ndarray, labels: np.ndarray) -> float:
    """Balanced accuracy in percent; mean absolute error in years for ages; mean concordance for values."""
    if task.kind == "age":
        return float(np.abs(predicted - labels).mean())
    if task.kind == "regression":
        found = RegressionResult(task.labels, predicted, labels).metrics()
        return float(np.mean([found[f"ccc_{name}"] for name in task.labels]))
    return 100 * float(balanced_accuracy_score(labels, predicted))


def network_predictions(task: Task, predictions: dict[str, np.ndarray]) -> np.ndarray:
    """The network's classes, ages or values."""
    values = predictions[task.name]
    return values if task.kind in ("age", "regression") else values.argmax(axis=1)


def main() -> None:
    """Runs the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=pathlib.Path, required=True, help="folder with the prepared `people`")
    parser.add_argument("--model", type=pathlib.Path, required=True, help="folder of the network trained on it")
    parser.add_argument("--real", type=pathlib.Path, help="folder with the prepared `facial_expressions`")
    arguments = parser.parse_args()
    model = load_model(arguments.model)
    train, validation = (FaceSource(arguments.people, "people", split) for split in ("train", "validation"))
    pixels = grey_pixels(train), grey_pixels(validation)
    predictions = model.predict(crops(validation))
    probes = {}
    print(f"| task | figure | chance or median | pixels, linear | {model.cfg.architecture} | n |")
    print("|---|---|---|---|---|---|")
    for name in model.cfg.tasks:
        task = TASKS[name]
        labels, truth = train.labels(task.label_key), validation.labels(task.label_key)
        linear = Ridge(1000.0) if task.kind in ("age", "regression") else LogisticRegression(C=1e-3, max_iter=300)
        probes[name] = make_pipeline(StandardScaler(), linear).fit(pixels[0], labels)
        if task.kind == "age":
            chance = score(task, np.full(truth.shape, np.median(labels)), truth)
        else:
            chance = 0.0 if task.kind == "regression" else 100 / len(task.labels)
        figure = {"age": "error, years", "regression": "concordance"}.get(task.kind, "balanced accuracy, %")
        linear_score = score(task, probes[name].predict(pixels[1]), truth)
        network_score = score(task, network_predictions(task, predictions), truth)
        print(f"| {name} | {figure} | {chance:.1f} | {linear_score:.2f} | {network_score:.2f} | {len(truth)} |")
    if arguments.real:
        print_transfer(arguments.real, model, probes)


def print_transfer(data_dir: pathlib.Path, model, probes: dict) -> None:
    """Prints the table of both on real photos, from both splits, since neither was trained on any."""
    sources = [FaceSource(data_dir, "facial_expressions", split) for split in ("train", "validation")]
    pixels = np.concatenate([grey_pixels(source) for source in sources])
    parts = [model.predict(crops(source)) for source in sources]
    predictions = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    labels = {
        key: np.concatenate([source.labels(key) for source in sources]) for key in ("emotion", "gender", "ethnicity")
    }
    print(f"\n| real photos | n | chance | pixels, linear | {model.cfg.architecture} |\n|---|---|---|---|---|")
    for title, names in EXPRESSIONS.items():
        classes = [EMOTION8.index(name) for name in names]
        known = np.isin(labels["emotion"], classes)
        rows = (probes["emotion8"].predict_proba(pixels), predictions["emotion8"])
        found = [np.array(classes)[row[known][:, classes].argmax(axis=1)] for row in rows]
        scores = [100 * balanced_accuracy_score(labels["emotion"][known], values) for values in found]
        print(f"| {title} | {known.sum()} | {100 / len(names):.1f} | {scores[0]:.1f} | {scores[1]:.1f} |")
    for name in ("gender", "ethnicity"):
        known, task = labels[name] >= 0, TASKS[name]
        found = (probes[name].predict(pixels), predictions[name].argmax(axis=1))
        scores = [100 * balanced_accuracy_score(labels[name][known], values[known]) for values in found]
        print(f"| {name} | {known.sum()} | {100 / len(task.labels):.1f} | {scores[0]:.1f} | {scores[1]:.1f} |")


if __name__ == "__main__":
    try:
        main()
    except (ConfigError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
