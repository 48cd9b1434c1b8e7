"""One file per figure; each offers `draw(runs)`, which returns a Plot or says what is missing."""
