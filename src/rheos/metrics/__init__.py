"""Figures that say how near samples are to data, each beside its floor."""

from .bits import bits_per_dimension, dequantise
from .classifier import Classifier, class_agreement, train_classifier
from .coverage import Manifold, manifold
from .distances import energy_distance, median_distance, mmd, sliced_wasserstein
from .features import FeatureExtractor, RandomFeatures, Values
from .floor import Figure, with_floor, with_floors
from .frechet import Moments, frechet_distance
from .inception import Inception, InceptionNetwork, frechet_name, load_inception
from .memorisation import Memorisation, memorisation
from .pairwise import nearest_distance
from .trajectories import TrajectoryFigures, flow_figures, trajectory_figures

__all__ = [
    "Classifier",
    "FeatureExtractor",
    "Figure",
    "Inception",
    "InceptionNetwork",
    "Manifold",
    "Memorisation",
    "Moments",
    "RandomFeatures",
    "TrajectoryFigures",
    "Values",
    "bits_per_dimension",
    "class_agreement",
    "dequantise",
    "energy_distance",
    "flow_figures",
    "frechet_distance",
    "frechet_name",
    "load_inception",
    "manifold",
    "median_distance",
    "memorisation",
    "mmd",
    "nearest_distance",
    "sliced_wasserstein",
    "train_classifier",
    "trajectory_figures",
    "with_floor",
    "with_floors",
]
