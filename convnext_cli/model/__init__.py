"""The network, its config, and the card that says what a file of weights is."""
