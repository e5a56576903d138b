"""Training and evaluation: where data, model and losses meet."""
