"""One file per row of the paper; each starts with what it reproduces, the number and the command."""
