"""Open vSwitch: its database as pictures of bridges, and its flows."""
