"""Image files, grids and animations."""
