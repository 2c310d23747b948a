"""Quality of generated images, compared with real ones. Needs the extra `eval`."""
