"""Many slides: tasks, workers, files."""
