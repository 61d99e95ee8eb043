"""nftables tables: read, compared by meaning, rehearsed and replaced."""
