"""The specs of a study: its runs and their identities, parents, resources and model sizes."""
