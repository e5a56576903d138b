"""What is computed: blocks, backbones, shared paths, policy and heads. Knows no data set and no loss."""
