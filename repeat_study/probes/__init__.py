"""What is measured on a model besides its losses; every probe has a null beside it."""
