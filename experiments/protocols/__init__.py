"""Protocols that train no network: what `run.py` starts for a `VideoConfig`, `LfwConfig` or `AttributesConfig`."""
