"""Denoising diffusion models. Depends only on torch; no I/O, no global state."""
