"""What each activation is: the records of the catalogue, and the vocabulary they are written in."""
