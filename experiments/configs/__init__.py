"""One file a row of the paper; each opens with what it reproduces, the number and the command."""
