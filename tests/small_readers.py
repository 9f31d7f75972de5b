"""A world in which what is read is known: images of four places, each of a colour and a digit."""

import numpy as np
import torch
from accelerate import Accelerator

from lossmap.readers.asked import padded
from lossmap.readers.learning import ReaderTraining, read, train_reader
from lossmap.readers.material import Material
from lossmap.readers.questions import Questions
from lossmap.reconstruct.split import split_images
from lossmap.store import from_arrays

COLOURS, DIGITS, PLACES = 3, 4, 4
WIDTH = 24
VOCABULARY = ["what", "colour", "digit", "is", "at", *(f"place{i}" for i in range(PLACES))]
ANSWERS = COLOURS + DIGITS  # colours first
NETWORK = {"blocks": 1, "width": 32, "heads": 4, "dropout": 0.0}
QUICK = ReaderTraining(epochs=25, questions=128, learning_rate=0.004, patience=4)


class World:
    """n images. pre (n, 4, WIDTH): a colour's vector, a digit's and noise, at each place. Two questions are asked of
    each image: what colour, and what digit, is at a place."""

    def __init__(self, n: int, seed: int):
        rng, fixed = np.random.default_rng(seed), np.random.default_rng(7)
        self.colours, self.digits = rng.integers(0, COLOURS, (n, PLACES)), rng.integers(0, DIGITS, (n, PLACES))
        self.colour_vectors = fixed.normal(size=(COLOURS, WIDTH))
        self.digit_vectors = fixed.normal(size=(DIGITS, WIDTH))
        noise = 0.1 * rng.normal(size=(n, PLACES, WIDTH))
        self.pre = (self.colour_vectors[self.colours] + self.digit_vectors[self.digits] + noise).astype(np.float32)
        places = rng.integers(0, PLACES, (n, 2))
        images = np.repeat(np.arange(n), 2)
        targets = np.stack(
            [
                self.colours[np.arange(n), places[:, 0]],
                COLOURS + self.digits[np.arange(n), places[:, 1]],
            ],
            axis=1,
        )
        kinds = np.tile(["colour", "digit"], n)
        texts = [[f"what {kind} is at place{place}"] for kind, place in zip(kinds, places.ravel(), strict=True)]
        self.questions = Questions(images, texts, targets.ravel(), kinds)

    def lexicon(self):
        vectors = torch.randn(len(VOCABULARY), 16, generator=torch.Generator().manual_seed(1))
        tokens = [
            [[VOCABULARY.index(word) for word in text.split()] for text in texts] for texts in self.questions.texts
        ]
        return padded(tokens, vectors)

    def store(self, post):
        return from_arrays(self.pre, post.astype(np.float32), pre_grid=(2, 2))


def without_colour(world: World) -> np.ndarray:
    """post without what tells colours apart: pre less its part in the span of the differences of their vectors."""
    differences = world.colour_vectors[1:] - world.colour_vectors[0]
    basis, _ = np.linalg.qr(differences.T)
    return world.pre - world.pre @ basis @ basis.T


def trained(world: World, store, side, network=None, seed=0, questions=None):
    """A reader of a side, its material, and how its training went."""
    material = Material(store, side, questions or world.questions, world.lexicon())
    split = split_images(len(material), 0.2, [100], 0)
    reader, done = train_reader(material, split, network or NETWORK, ANSWERS, seed, QUICK, Accelerator(cpu=True))
    return reader, material, done, split


def answers(reader, world: World, store, side, scale):
    """What a reader says of all questions of a world."""
    return read(reader, Material(store, side, world.questions, world.lexicon(), scale))
