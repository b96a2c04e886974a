"""The model card of MTCNN, whose weights come from the PyPI package ``mtcnn``."""

from facejax.cards.card import measured_table
from facejax.cards.published import Measured
from facejax.cards.terms import register_table
from facejax.cards.use import PROHIBITED

# According to the paper (Zhang et al., 2016): faces and boxes from the former, landmarks from the latter.
TRAINING_DATA = ("wider_face", "celeb_a")
MEASURED = (
    Measured("photos in which no face was found", "facial_expressions, all splits", "3,622 photos", "52 (1.4 %)"),
    Measured("groups of people", "-", "-", "not measured"),
)


def detector_card() -> str:
    """Returns the card as Markdown."""
    return "\n".join(
        [
            "# Model card: MTCNN (P-, R- and O-Net)",
            "",
            "Detects faces and five landmarks per face: boxes, scores, eyes, nose, mouth corners. Zhang, Zhang, Li "
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
            "- Detects upright faces of at least 20 px; profile, occluded and rotated faces are often missed.",
            "- Produces false positives, mostly small ones: folds of cloth, knees, leaves. Check the score.",
            *(f"- Not for: {line[0].lower()}{line[1:]}" for line in PROHIBITED),
            "",
        ]
    )
