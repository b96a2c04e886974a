"""Experiments: configs, their command line, and what came out of them."""
