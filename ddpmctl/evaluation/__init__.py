"""Quality of generated images, measured beside real ones. Needs the extra `eval`."""
