"""How the platform is run: local, and the demo."""
