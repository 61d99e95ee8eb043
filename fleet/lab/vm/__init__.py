"""Lab hosts with a kernel of their own: QEMU guests of one built image."""
