"""What may go wrong while a session works, done to it on purpose."""
