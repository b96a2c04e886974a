"""Readers of face datasets: one module per dataset, each yielding `facejax.data.records.Record`."""

from facejax.datasets.registry import Dataset, get_dataset, is_complete, list_datasets, register_dataset

__all__ = ["Dataset", "get_dataset", "is_complete", "list_datasets", "register_dataset"]
