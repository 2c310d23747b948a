"""From pixels to files and to the terminal."""
