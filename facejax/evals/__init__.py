"""Protocols of the paper: what is measured, on which records, and how it is reported."""
