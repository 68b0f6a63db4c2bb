"""What the models are made of, where no other implementation says it."""
