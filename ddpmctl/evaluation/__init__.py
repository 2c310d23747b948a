"""How good a model is, measured on its images beside the real ones. Needs the extra `eval`."""
