"""How good a model is on a user's own ground: simulated prompts, and measures of the answers."""
