"""What runs around the algorithm: files, processes, signals, consoles, random states, recordings."""
