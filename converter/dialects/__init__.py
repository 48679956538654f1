"""Names, layouts and conventions between frameworks: pure functions on a Checkpoint."""
