"""Sampling: a loaded model, the sampling loop, requests and shards."""
