"""Face recognizers in Keras: files of their weights, arithmetic, and layers of a network."""
