"""The demonstration: a simulated upstream with real flights data, and the main job."""
