"""Property tests: the same examples on every run, and time for numba to compile."""

from hypothesis import settings

settings.register_profile("keras_scnn", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("keras_scnn")
