"""The networks: encoder, heads, the Siamese pair, and presets that carry trained weights.

``__init__.pyi`` lists the names. Submodules are imported on first use, so that presets and LiteRT
work without Keras.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
