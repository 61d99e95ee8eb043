"""libvirt's own books: what virsh says of them, compared by meaning."""
