"""Face recognizers in Keras: their weight files, forward passes, and layers of a network."""
