"""What holds for every input, not for examples alone: hypothesis looks for one that breaks it."""
