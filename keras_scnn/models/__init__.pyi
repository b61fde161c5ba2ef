# The names, listed once: what Python imports on first use, and what type checkers see.

from .encoder_table import ENCODERS as ENCODERS
from .encoders import build_encoder as build_encoder
from .flip_averaging import build_flip_averaged as build_flip_averaged
from .group import build_group as build_group
from .heads import FaceDecoder as FaceDecoder
from .heads import build_branch as build_branch
from .heads import build_regressor as build_regressor
from .preset_network import Preset as Preset
from .preset_network import PresetData as PresetData
from .presets import load_preset as load_preset
from .presets import preset_face_model as preset_face_model
from .presets import read_preset as read_preset
from .presets import save_preset as save_preset
from .presets import write_metadata as write_metadata
from .siamese import build_siamese as build_siamese
