"""Results that facejax measured with published weights; weights that were not available have no entry.

Figures are copied from experiments/results/README.md, which lists the commands, machines and dates.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Measured:
    """One measured figure of a card.

    Attributes:
        what: Metric, unit and group of people.
        data: Dataset and split.
        n: Number of photos, people or pairs, with the unit.
        value: The figure with its interval.
    """

    what: str
    data: str
    n: str
    value: str


_REAL = "facial_expressions, validation"
MEASURED: dict[str, tuple[Measured, ...]] = {
    "mobilenet_v1.vggface2_age_gender": (
        Measured("gender accuracy %", _REAL, "597 photos", "97.82 [96.31, 98.72]"),
        Measured("gender accuracy %, women", _REAL, "132 photos of 99 people", "92.42 [87.41, 96.53]"),
        Measured("gender accuracy %, men", _REAL, "465 photos of 294 people", "99.35 [98.53, 100.00]"),
        Measured("gap between women and men, points", _REAL, "597 photos", "6.93 [2.59, 11.86], worst group: women"),
        Measured(
            "identification by features, rank 1 %",
            "facial_expressions, LFW's protocol on MTCNN crops",
            "480 test photos of 172 people",
            "82.37 [78.17, 86.04]",
        ),
        Measured(
            "verification by features %",
            "facial_expressions, LFW's protocol on MTCNN crops",
            "3,438 sampled pairs",
            "90.11, std 3.88 over ten folds",
        ),
        Measured("age", "-", "no photos with known ages were available", "not measured"),
        Measured("ethnic groups", _REAL, "at most 10 photos per group, except one", "too few to tell"),
    ),
}
