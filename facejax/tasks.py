"""The tasks of the paper: their labels, the order of the labels, and how a head's outputs are interpreted.

The label orders are those of the published models (alphabetical for expressions, UTKFace's for ethnicity), so that
converted weights need no permutation. Standard library only: everything else in facejax may import this module.
"""

import dataclasses
from typing import Literal

Kind = Literal["categorical", "identity", "binary", "age", "regression"]

EMOTION8 = ("anger", "contempt", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
EMOTION7 = tuple(label for label in EMOTION8 if label != "contempt")
GENDER = ("female", "male")
GROUP_EMOTION = ("positive", "neutral", "negative")
ETHNICITY = ("white", "black", "asian", "indian", "latino_middle_eastern")


@dataclasses.dataclass(frozen=True)
class Task:
    """One attribute to be predicted from a face.

    Attributes:
        name: Name of the task and of its head.
        kind: How the head's outputs are trained and decoded: ``categorical`` (softmax), ``identity`` (softmax over
            thousands of identities, of which the top few are used), ``binary`` (one logit, that of ``labels[1]``),
            ``age`` (softmax over years, decoded by the paper's equation 1) or ``regression`` (raw values).
        label_key: Field of a prepared record that contains the label.
        labels: Class names in the order of the head's outputs; empty for identity, whose classes come from the dataset.
        num_outputs: Width of the head; 0 if it depends on the dataset (identity).
        weighted: Whether rare classes get larger weights in the loss (paper eq. 2: expression and ethnicity).
        label_map: Class for each value of the label field, -1 for none, where the two differ (7 classes out of 8).
        hidden: Width of the extra hidden layer before the last one, 0 for none (paper section 3: age has one).
    """

    name: str
    kind: Kind
    label_key: str
    labels: tuple[str, ...] = ()
    num_outputs: int = 0
    hidden: int = 0
    weighted: bool = False
    label_map: tuple[int, ...] = ()


TASKS = {
    task.name: task
    for task in (
        Task("identity", "identity", "identity"),
        Task("age", "age", "age", tuple(str(year) for year in range(1, 101)), 100, hidden=256),
        Task("gender", "binary", "gender", GENDER, 1),
        Task("ethnicity", "categorical", "ethnicity", ETHNICITY, len(ETHNICITY), weighted=True),
        Task("emotion8", "categorical", "emotion", EMOTION8, len(EMOTION8), weighted=True),
        Task(
            "emotion7",
            "categorical",
            "emotion",
            EMOTION7,
            len(EMOTION7),
            weighted=True,
            label_map=tuple(EMOTION7.index(label) if label in EMOTION7 else -1 for label in EMOTION8),
        ),
        Task("valence_arousal", "regression", "valence_arousal", ("valence", "arousal"), 2),
    )
}
