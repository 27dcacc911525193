"""The platform on one machine: its parts, what they need, and how they are started, watched and stopped."""
