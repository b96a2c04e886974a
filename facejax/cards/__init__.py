"""Model cards: intended use of the weights, training data and its terms, measured results, and limitations.

`card.model_card` builds a card from a `PretrainedCfg` and a report, `terms` is the register of datasets and their
licences, and `use` contains the texts on intended and prohibited use.
"""
