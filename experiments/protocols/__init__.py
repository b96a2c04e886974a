"""Protocols that train no network, which `run.py` runs for a `VideoConfig`, `LfwConfig` or `AttributesConfig`."""
