"""The embedded face model and the released presets."""
