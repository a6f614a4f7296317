"""What Processing offers: the engine's commands as algorithms."""
