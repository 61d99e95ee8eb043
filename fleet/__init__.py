"""fleet configures the networking of fleets of KVM hypervisors."""

__version__ = "0.1.0"
