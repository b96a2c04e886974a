"""The register of data sets that weights come from: on which terms each is given, and what follows for weights.

Sets with a reader say it themselves (`facejax.datasets.registry.Dataset`); the others that published weights were
trained on are listed here. docs/licences.md is this register in print (tools/make_model_cards.py).
"""

import dataclasses
from typing import Literal

from facejax.datasets.registry import get_dataset, list_datasets

Commercial = Literal["no", "unclear", "yes"]
# What the terms of a set mean for networks that are trained on it. Nobody's legal advice: the cautious reading.
FOLLOWS: dict[Commercial, str] = {
    "no": "for research only, whatever licence their publisher states",
    "unclear": "for research; ask before any other use, which nobody granted",
    "yes": "free as far as the data go",
}


@dataclasses.dataclass(frozen=True)
class DataTerms:
    """On which terms a data set is given.

    Attributes:
        name: In the register.
        licence: The terms, in a few words.
        url: Where they are published; empty where the set itself never was.
        commercial: Whether they allow commercial use of the data.
    """

    name: str
    licence: str
    url: str
    commercial: Commercial

    @property
    def follows(self) -> str:
        """What that means for weights that are trained on it."""
        return FOLLOWS[self.commercial]


_WITHOUT_READER = {
    terms.name: terms
    for terms in (
        DataTerms(
            "imagenet_1k",
            "for non-commercial research and education (photos remain their owners')",
            "https://www.image-net.org/download",
            "no",
        ),
        DataTerms("jft_300m", "never published; Google's own collection of web photos", "", "unclear"),
        DataTerms("wider_face", "CC BY-NC-ND 4.0", "http://shuoyang1213.me/WIDERFACE/", "no"),
    )
}


def list_terms() -> list[str]:
    """Sorted names of the sets in the register."""
    return sorted({*list_datasets(), *_WITHOUT_READER})


def data_terms(name: str) -> DataTerms:
    """The terms of a set. One that nobody registered counts as unclear: a model's folder may come from elsewhere."""
    if name in _WITHOUT_READER:
        return _WITHOUT_READER[name]
    try:
        reader = get_dataset(name)
    except ValueError:
        return DataTerms(name, "not known to this version of facejax", "", "unclear")
    return DataTerms(name, reader.licence, reader.url, reader.commercial)


def register_table(names: list[str] | None = None) -> list[str]:
    """Markdown rows of the register, or of some of its sets."""
    lines = ["| set | terms | commercial use | networks trained on it |", "|---|---|---|---|"]
    for terms in map(data_terms, list_terms() if names is None else names):
        source = f"{terms.licence} <{terms.url}>" if terms.url else terms.licence
        lines.append(f"| `{terms.name}` | {source} | {terms.commercial} | {terms.follows} |")
    return lines
