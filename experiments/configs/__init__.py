"""One file a row of the paper; each opens with what it reproduces, the number, the command and the time."""
