"""What network devices share: addresses and routes, how they are compared and changed."""
