"""Photos in, rows out: decoding threads, preprocessing and the predictor, the one stream of every command."""
