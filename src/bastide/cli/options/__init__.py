"""What the values of flags mean, and the requests they become."""
