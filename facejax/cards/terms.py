"""The register of training datasets: the terms of each, and what they imply for weights trained on it.

Datasets with a reader declare their own terms (`facejax.datasets.registry.Dataset`); the others that published weights
were trained on are listed here. docs/licences.md is generated from this register (tools/make_model_cards.py).
"""

import dataclasses
from typing import Literal

from facejax.datasets.registry import get_dataset, list_datasets

Commercial = Literal["no", "unclear", "yes"]
# What the terms of a dataset mean for networks trained on it. A cautious reading, not legal advice.
CONSEQUENCES: dict[Commercial, str] = {
    "no": "research only, whatever licence the publisher states",
    "unclear": "research; no other use was granted, so ask first",
    "yes": "no restriction from the data",
}


@dataclasses.dataclass(frozen=True)
class DataTerms:
    """The terms under which a dataset is distributed.

    Attributes:
        name: Name in the register.
        licence: Short description of the terms.
        url: Where the terms are published; empty if the dataset itself never was.
        commercial: Whether they allow commercial use of the data.
    """

    name: str
    licence: str
    url: str
    commercial: Commercial

    @property
    def consequence(self) -> str:
        """What the terms imply for weights trained on the dataset."""
        return CONSEQUENCES[self.commercial]


_TERMS_WITHOUT_READER = {
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
    """Sorted names of the datasets in the register."""
    return sorted({*list_datasets(), *_TERMS_WITHOUT_READER})


def data_terms(name: str) -> DataTerms:
    """The terms of a dataset. An unregistered one counts as unclear, since a model's folder may come from elsewhere."""
    if name in _TERMS_WITHOUT_READER:
        return _TERMS_WITHOUT_READER[name]
    try:
        reader = get_dataset(name)
    except ValueError:
        return DataTerms(name, "not known to this version of facejax", "", "unclear")
    return DataTerms(name, reader.licence, reader.url, reader.commercial)


def register_table(names: list[str] | None = None) -> list[str]:
    """Markdown table of the register, or of the named datasets only."""
    lines = ["| dataset | terms | commercial use | networks trained on it |", "|---|---|---|---|"]
    for terms in map(data_terms, list_terms() if names is None else names):
        source = f"{terms.licence} <{terms.url}>" if terms.url else terms.licence
        lines.append(f"| `{terms.name}` | {source} | {terms.commercial} | {terms.consequence} |")
    return lines
