"""What speaks for and against a guess, and where in the photo."""
