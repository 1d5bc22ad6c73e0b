"""Power cuts: the images that the disk may be left with, and what the engine makes of each."""
