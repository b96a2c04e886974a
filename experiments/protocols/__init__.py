"""Protocols that train no network: what `run.py` starts for a `VideoConfig` or a `LfwConfig`."""
