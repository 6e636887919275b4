"""The classifier on scikit-learn's digits: how well it reads, what it may depend on, and that it can be kept."""

from __future__ import annotations

import json

import pytest
import safetensors.torch
import torch
from sklearn.datasets import load_digits

from rheos.core import CheckpointError, InputError, Rng, ShapeError
from rheos.metrics import Classifier, class_agreement, train_classifier
from rheos.metrics.classifier import shift

Labelled = tuple[torch.Tensor, torch.Tensor]


def digits() -> tuple[Labelled, Labelled]:
    """1,437 digits to train on and 360 held out."""
    bunch = load_digits()
    images = torch.tensor(bunch["images"], dtype=torch.float32)[:, None] / 8 - 1
    labels = torch.tensor(bunch["target"], dtype=torch.int64)
    order = Rng(100).permutation(len(images))
    return (images[order[:1437]], labels[order[:1437]]), (images[order[1437:]], labels[order[1437:]])


def small(seed: int, epochs: int = 1) -> Classifier:
    (images, labels), held = digits()
    return train_classifier(images, labels, seed, held_out=held, limit=256, epochs=epochs, width=8, data="digits")


def test_digits_are_read() -> None:
    (images, labels), held = digits()
    classifier = train_classifier(images, labels, 0, held_out=held, data="digits")
    assert classifier.accuracy >= 0.98
    assert class_agreement(classifier, *held) == classifier.accuracy
    assert class_agreement(classifier, held[0], (held[1] + 1) % 10) <= 0.01
    assert classifier.name.startswith("cnn-digits-")
    features = classifier(held[0])
    assert features.shape == (360, 64)
    # A row depends on its own image alone.
    torch.testing.assert_close(classifier(held[0][7:8]), features[7:8], rtol=1e-4, atol=1e-5)


@pytest.mark.global_random
def test_training_is_a_function_of_the_seed_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = small(3)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    second, other = small(3), small(4)
    assert first.name == second.name
    assert first.name != other.name


def test_kept_and_rebuilt() -> None:
    classifier = small(0, epochs=3)
    tensors, config = classifier.state()
    data = safetensors.torch.save(tensors)
    rebuilt = Classifier.from_state(safetensors.torch.load(data), json.loads(json.dumps(config)))
    images = digits()[1][0]
    assert (rebuilt.name, rebuilt.accuracy) == (classifier.name, classifier.accuracy)
    assert torch.equal(rebuilt(images), classifier(images))
    assert torch.equal(rebuilt.predict(images), classifier.predict(images))


def test_foreign_weights_and_damaged_configurations_are_refused() -> None:
    tensors, config = small(0).state()
    with pytest.raises(CheckpointError, match="damaged"):
        Classifier.from_state(tensors, {key: value for key, value in config.items() if key != "width"})
    with pytest.raises(CheckpointError, match="do not fit"):
        Classifier.from_state(tensors, {**config, "classes": 3})
    with pytest.raises(CheckpointError, match="hash differs"):
        Classifier.from_state({**tensors, "head.bias": tensors["head.bias"] + 1e-3}, config)


def test_unknown_classes_are_left_out() -> None:
    classifier = small(0)
    images, labels = digits()[1]
    masked = labels.clone()
    masked[100:] = -1
    assert class_agreement(classifier, images, masked) == class_agreement(classifier, images[:100], labels[:100])
    with pytest.raises(InputError, match="unknown"):
        class_agreement(classifier, images, torch.full_like(labels, -1))


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 28, 28), (3, 32, 20)])
def test_any_resolution_and_colour_and_a_split_of_its_own(shape: tuple[int, int, int]) -> None:
    labels = torch.arange(80) % 2
    images = 0.3 * Rng(0).normal(80, *shape) + (labels[:, None, None, None] - 0.5)
    classifier = train_classifier(images, labels, 0, epochs=12, width=8, batch=16)
    assert classifier.accuracy == 1.0
    assert classifier.logits(images).shape == (80, 2)


def test_shifts_move_whole_images_by_at_most_their_reach() -> None:
    images = torch.zeros(200, 2, 28, 28)
    images[:, 0, 14, 10] = 1.0
    moved = shift(images, Rng(0))
    assert torch.equal(moved.sum((1, 2, 3)), torch.ones(200))
    rows, columns = moved[:, 0].flatten(1).argmax(1) // 28 - 14, moved[:, 0].flatten(1).argmax(1) % 28 - 10
    assert set(rows.tolist()) == set(columns.tolist()) == {-2, -1, 0, 1, 2}
    # The border is repeated, not wrapped or blackened.
    assert torch.equal(shift(torch.full((5, 1, 8, 8), 0.7), Rng(1)), torch.full((5, 1, 8, 8), 0.7))


def test_refusals() -> None:
    images, labels = torch.zeros(10, 1, 8, 8), torch.arange(10) % 2
    with pytest.raises(InputError, match="two classes"):
        train_classifier(images, torch.zeros(10, dtype=torch.int64), 0)
    with pytest.raises(ShapeError, match="at least 8"):
        train_classifier(images[..., :4], labels, 0)
    with pytest.raises(ShapeError, match="one integer label"):
        train_classifier(images, labels[:5], 0)
