"""From images to weights: the plan of a run, the loop, and what it remembers."""
