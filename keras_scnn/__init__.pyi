# The public names, listed once: what Python imports on first use, and what type checkers see.

from .data.records import FaceRecords as FaceRecords
from .data.records import load_records as load_records
from .data.records import save_records as save_records
from .data.samplers import GroupSampler as GroupSampler
from .data.samplers import PairSampler as PairSampler
from .data.stream import group_dataset as group_dataset
from .data.stream import pair_dataset as pair_dataset
from .export.artefacts import export_preset as export_preset
from .face_models import load_face_model as load_face_model
from .fitting import FitOptions as FitOptions
from .fitting import FitResult as FitResult
from .fitting import fit_landmarks as fit_landmarks
from .fitting import fit_person_landmarks as fit_person_landmarks
from .folders.folder import reconstruct_folder as reconstruct_folder
from .io import read_image as read_image
from .io import write_image as write_image
from .io import write_mesh as write_mesh
from .losses import WPDC as WPDC
from .losses import ContrastiveLoss as ContrastiveLoss
from .losses import ContrastiveLossLayer as ContrastiveLossLayer
from .losses import EmbeddingDistance as EmbeddingDistance
from .losses import ExponentialContrastiveLoss as ExponentialContrastiveLoss
from .losses import GroupContrastiveLoss as GroupContrastiveLoss
from .losses import IdentityLoss as IdentityLoss
from .losses import IdentityLossLayer as IdentityLossLayer
from .losses import LandmarkDistance as LandmarkDistance
from .losses import LossLayer as LossLayer
from .losses import ParameterLoss as ParameterLoss
from .losses import RelationalLoss as RelationalLoss
from .losses import SupervisedContrastiveLoss as SupervisedContrastiveLoss
from .losses import VertexDistance as VertexDistance
from .losses import add_loss_layers as add_loss_layers
from .models.encoders import build_encoder as build_encoder
from .models.group import build_group as build_group
from .models.heads import build_branch as build_branch
from .models.heads import build_regressor as build_regressor
from .models.inference import predict as predict
from .models.presets import Preset as Preset
from .models.presets import list_presets as list_presets
from .models.presets import load_preset as load_preset
from .models.presets import save_preset as save_preset
from .models.siamese import build_siamese as build_siamese
from .morphable_model import MorphableModel as MorphableModel
from .parameters import FaceParameters as FaceParameters
from .parameters import ParameterLayout as ParameterLayout
from .parameters import ParameterSpace as ParameterSpace
from .parameters import Whitening as Whitening
from .photos.detection import FaceDetector as FaceDetector

# LEAD: from .protocols.evaluation import evaluate_preset as evaluate_preset (branch startup)
from .reconstruction.faces import Reconstruction as Reconstruction
from .reconstruction.person import Person as Person
from .reconstruction.reconstructor import Reconstructor as Reconstructor

__version__: str
