"""Training data: photos, and the inputs, targets and references that are made of them."""
