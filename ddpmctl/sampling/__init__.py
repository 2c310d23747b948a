"""Sampling: a `request` says which images, an `engine` runs it along the chain (`loop`); the rest builds on these."""
