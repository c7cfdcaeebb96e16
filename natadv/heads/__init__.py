"""What is trained on a frozen tower: a decoder that finds, and a network that answers."""
