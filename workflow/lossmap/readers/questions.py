"""Questions about images, their answers, and the control task."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lossmap.errors import LossmapError


@dataclass(frozen=True, eq=False)
class Questions:
    """Questions about the images of a store.

    images (n,): number of each question's image in the store. texts: of each question what is read, an open one's own
    text alone, of multiple choice the question with each of its options. targets (n,): number of the right answer, or
    option; -1 where it is none of those that a reader knows. categories (n,): what kind of question each is.
    """

    images: np.ndarray
    texts: Sequence[Sequence[str]]
    targets: np.ndarray
    categories: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def some(self, which: np.ndarray) -> "Questions":
        """Those of these numbers, or where a mask of all is true."""
        numbers = np.arange(len(self))[which]
        texts = [self.texts[i] for i in numbers]
        return Questions(self.images[numbers], texts, self.targets[numbers], self.categories[numbers])


def majority_answers(answers: Sequence[Sequence[str]]) -> list[str]:
    """The answer that most annotators gave, of each question; of equally frequent ones the first given."""
    found = []
    for given in answers:
        counts: dict[str, int] = {}
        for answer in given:
            counts[answer] = counts.get(answer, 0) + 1
        found.append(max(counts, key=counts.__getitem__))
    return found


def frequent_answers(majority: Sequence[str], most: int) -> list[str]:
    """The `most` most frequent answers of a training set; of equally frequent ones the first by the alphabet.

    Raises: LossmapError if all questions have one and the same answer: there would be nothing to read.
    """
    names, counts = np.unique(np.asarray(majority, dtype=str), return_counts=True)
    if len(names) < 2:
        raise LossmapError(f"All {len(majority)} training questions have the answer {names.tolist()}: nothing to read.")
    order = np.lexsort((names, -counts))
    return [str(name) for name in names[order[:most]]]


def permuted(questions: Questions, seed: int) -> Questions:
    """The control task: answers exchanged at random among the questions of a category with as many options, so that
    nothing that is seen tells an answer, and how often each is given tells as much as before.

    Source: Hewitt and Liang 2019, arXiv:1909.03368.
    """
    rng, targets = np.random.default_rng(seed), questions.targets.copy()
    options = np.array([len(texts) for texts in questions.texts])
    pairs = list(zip(questions.categories.tolist(), options.tolist(), strict=True))
    for category, count in dict.fromkeys(pairs):
        places = np.flatnonzero((questions.categories == category) & (options == count))
        targets[places] = targets[rng.permutation(places)]
    return replace(questions, targets=targets)
