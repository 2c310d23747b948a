"""Sampling: a `request` specifies the images, an `engine` runs it (`loop`); the rest builds on these."""
