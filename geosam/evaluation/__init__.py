"""How good a model is on a user's own ground: prompts simulated from true outlines, and measures."""
