"""`python -m repeat_study.cli`."""

from repeat_study.cli import main

main()
