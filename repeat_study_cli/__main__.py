"""Run the command line with `python -m repeat_study_cli`."""

from repeat_study_cli import main

main()
