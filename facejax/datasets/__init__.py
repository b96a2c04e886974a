"""Readers of face data sets: one module a set, each yielding `facejax.data.records.Record`."""

from facejax.datasets.registry import Dataset, get_dataset, is_whole, list_datasets, register_dataset

__all__ = ["Dataset", "get_dataset", "is_whole", "list_datasets", "register_dataset"]
