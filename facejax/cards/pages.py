"""The two pages of docs/ that are printed from the package: docs/model_cards.md and docs/licences.md."""

from facejax.cards.card import card_sections
from facejax.cards.detector import detector_card
from facejax.cards.terms import register_table
from facejax.cards.use import INTENDED, PROHIBITED
from facejax.models import list_models, pretrained_cfg

_CARDS = """\
# Model cards of published weights

Printed by `python tools/make_model_cards.py`; a test holds that it is up to date. facejax ships no weights; these can
be converted ([weights.md](weights.md)). Each converted or trained folder and every export holds its own card
(`MODEL_CARD.md`, `NAME.md`); `facejax models NAME --card` prints one. A run's card is made from its report: accuracy,
recall by class, calibration, groups of people.

## For all of them

For:

{intended}

Not for, whatever the accuracy ([responsible_use.md](responsible_use.md)):

{prohibited}

*Measured* is what facejax measured itself, on real photos, with the commands in
[experiments/results](../experiments/results/README.md). Where it says *nothing*, the file was not at hand; what its
publisher claims is not repeated.
"""

_LICENCES = """\
# Licences of data sets, and what follows for weights

Printed by `python tools/make_model_cards.py`; a test holds that it is up to date. The readers hold the terms
(`facejax.datasets.registry.Dataset`), and sets without a reader that published weights were trained on are in
`facejax/cards/terms.py`. How each is obtained: [datasets.md](datasets.md).

Weights carry the strictest terms of all sets they were trained on, the first stages included: an expression network
that started from VGGFace2 is for research only, whatever its own photos allow. `model.json` keeps the list
(`training_data`), and every card says what follows. *no*: the terms forbid commercial use. *unclear*: nobody granted
it. Nobody here is a lawyer; terms change, and the page named in the table decides.

{register}

No licence in this table clears the rights of the people on the photos, who were mostly never asked. facejax's own code
is Apache-2.0, its rendered people CC0; a network trained on nothing but `people` is free of others' terms, and knows no
real face.
"""


def cards_page() -> str:
    """docs/model_cards.md: what all published weights share, then a card each, then the detector's."""
    intended, prohibited = ("\n".join(f"- {line}" for line in lines) for lines in (INTENDED, PROHIBITED))
    lines = [_CARDS.format(intended=intended, prohibited=prohibited)]
    for name in list_models(pretrained=True):
        lines += [f"## {name}", "", *card_sections(pretrained_cfg(name))]
    detector = detector_card().replace("\n## ", "\n### ").replace("# Model card: ", "## ", 1)
    return "\n".join([*lines, detector])


def licences_page() -> str:
    """docs/licences.md: the register of data sets."""
    return _LICENCES.format(register="\n".join(register_table()))
