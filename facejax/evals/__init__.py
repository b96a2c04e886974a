"""The paper's protocols: what is measured, on which records, and how it is reported."""
