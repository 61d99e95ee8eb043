"""What runs on the hypervisor: the standard library and pyroute2 only, Python 3.9 or later."""
