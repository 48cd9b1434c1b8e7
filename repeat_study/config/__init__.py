"""What a study file declares: the study, its runs and their identities, their parents and resources."""
