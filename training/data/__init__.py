"""Photos and what is made of them: inputs, targets, references, degradations."""
