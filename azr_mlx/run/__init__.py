"""One run: its session, its folder, its checkpoints, and what one sees of it."""
