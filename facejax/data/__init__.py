"""Prepared data sets: TFRecord shards, their metadata, and how batches are read from them."""
