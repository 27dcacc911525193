"""What a good engineer would write instead of using the platform: no gate, no release, no record of what was done."""
