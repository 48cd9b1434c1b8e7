"""One file per figure; each offers `draw(runs)`, which returns a Drawing or says what is missing."""
