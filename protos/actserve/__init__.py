"""What both ends of actserve's wire must agree on, and nothing else: the messages, their framing, the format of states."""
