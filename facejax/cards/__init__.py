"""Model cards: what weights are for, their data and its terms, what was measured, what they cannot.

`card.model_card` makes one from a `PretrainedCfg` and a report; `terms` is the register of data sets; `use` has the
words.
"""
