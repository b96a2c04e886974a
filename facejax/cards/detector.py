"""The card of MTCNN, whose weights come with the PyPI package ``mtcnn``."""

from facejax.cards.card import measured_table
from facejax.cards.published import Measured
from facejax.cards.terms import register_table
from facejax.cards.use import PROHIBITED

# By the authors' paper (Zhang et al., 2016): faces and boxes of the one, landmarks of the other.
TRAINING_DATA = ("wider_face", "celeb_a")
MEASURED = (
    Measured("photos in which no face was found", "facial_expressions, all of it", "3,622 photos", "52 (1.4 %)"),
    Measured("groups of people", "-", "-", "not measured"),
)


def detector_card() -> str:
    """The card, Markdown."""
    return "\n".join(
        [
            "# Model card: MTCNN (P-, R- and O-Net)",
            "",
            "Finds faces and five points of each: boxes, scores, eyes, nose, corners of the mouth. Zhang, Zhang, Li "
            "and Qiao, 2016; weights as shipped in the PyPI package `mtcnn` 1.0.0 (MIT).",
            "",
            "## Data",
            "",
            *register_table(list(TRAINING_DATA)),
            "",
            "## Measured",
            "",
            *measured_table(MEASURED),
            "",
            "## Limits",
            "",
            "- Looks for upright faces of 20 px and more; profiles, covered and turned faces are often missed.",
            "- Finds faces where there are none, mostly small ones: folds of cloth, knees, leaves. Look at the score.",
            *(f"- Not for: {line[0].lower()}{line[1:]}" for line in PROHIBITED),
            "",
        ]
    )
