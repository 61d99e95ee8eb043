"""The helper on its way: what is pushed, how it starts, how it is spoken to."""
