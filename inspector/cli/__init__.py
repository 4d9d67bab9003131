"""click commands; no Textual, and no torch until a command needs it."""
