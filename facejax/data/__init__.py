"""Prepared datasets: TFRecord shards, their metadata, and the loaders that read batches from them."""
