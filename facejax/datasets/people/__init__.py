"""The built-in dataset: rendered people with true labels. Start reading at `reader`, then `scene` and `render`."""

from facejax.datasets.people.reader import People

__all__ = ["People"]
