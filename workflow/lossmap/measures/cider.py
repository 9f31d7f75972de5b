"""CIDEr-D: what a caption has in common with the references of its image, rare words counting more."""

import numpy as np

LONGEST = 4  # words of an n-gram
SIGMA = 6.0  # of the length penalty, in words


def cider_d(candidates, references):
    """CIDEr-D of one caption per image, which is what is published as CIDEr.

    For n = 1 to 4, the cosine of the tf-idf vectors of the n-grams of caption and reference, the caption's weights
    clipped to the reference's, times exp(-d^2 / (2 sigma^2)) with sigma = 6 and d the difference of their lengths; then
    the mean over n and over references, times 10. Document frequency is the number of images in whose references an
    n-gram occurs. So a score depends on all images: never score a part of a split.

    Parameters: candidates, a list of tokens per image. references, a list per image, of one or more lists of tokens.
    Returns: (n,) float64 in [0, 10], which papers show times 100. 0 for a caption without tokens, or without an n-gram
        of any reference. An n-gram that all images have weighs nothing, so a split of one image scores 0.
    Raises: ValueError if there are no images or not one caption for each, an image has no reference, or a caption is a
        string where a list of tokens is wanted (the first such image is named).
    Source: Vedantam et al. 2015, arXiv:1411.5726; the same numbers as pycocoevalcap 1.2.
    """
    _check(candidates, references)
    images = len(candidates)
    captions = [*candidates, *(reference for several in references for reference in several)]
    image_of = np.repeat(np.arange(images), [len(several) for several in references])  # of each reference
    owner = np.concatenate([np.arange(images), image_of])  # of each caption
    similarity = np.zeros(len(image_of))
    for caption, gram, count in _n_grams(captions):
        first = np.searchsorted(caption, images)  # the candidates' n-grams come first, then those of the references
        if first == 0:
            break
        of_image = owner[caption] * (gram.max() + 1) + gram
        documents = np.bincount(np.unique(of_image[first:]) % (gram.max() + 1), minlength=gram.max() + 1)
        weight = count * (np.log(images) - np.log(np.maximum(documents, 1)))[gram]
        norm = np.sqrt(np.bincount(caption, weight**2, minlength=len(captions)))
        theirs, place = weight[first:], np.searchsorted(of_image[:first], of_image[first:]) % first
        shared = of_image[:first][place] == of_image[first:]
        product = np.where(shared, np.minimum(weight[:first][place], theirs) * theirs, 0)
        cosine = np.bincount(caption[first:] - images, product, minlength=len(image_of))
        norms = norm[image_of] * norm[images:]
        similarity += np.divide(cosine, norms, out=np.zeros(len(image_of)), where=norms > 0)
    length = np.array([len(caption) for caption in captions])
    similarity *= np.exp(-((length[image_of] - length[images:]) ** 2) / (2 * SIGMA**2))
    return 10 / LONGEST * np.bincount(image_of, similarity) / np.bincount(image_of)


def _n_grams(captions):
    """For n = 1 to 4, which n-grams each caption has: arrays of caption, n-gram and count, sorted by the first two."""
    numbers = {}
    words = np.array(
        [numbers.setdefault(word, len(numbers)) for caption in captions for word in caption], dtype=np.int64
    )
    lengths = np.array([len(caption) for caption in captions])
    caption_of = np.repeat(np.arange(len(captions)), lengths)
    left = np.cumsum(lengths)[caption_of] - np.arange(len(words))  # words from here to the caption's end
    at, gram = np.arange(len(words)), words  # where n-grams begin, and their numbers
    for n in range(1, LONGEST + 1):
        if n > 1:
            longer = left[at] >= n
            at = at[longer]
            _, gram = np.unique(gram[longer] * len(numbers) + words[at + n - 1], return_inverse=True)
        size = gram.max(initial=0) + 1
        key, count = np.unique(caption_of[at] * size + gram, return_counts=True)
        yield key // size, key % size, count


def _check(candidates, references):
    if len(candidates) != len(references):
        raise ValueError(f"there are {len(candidates)} candidates and references of {len(references)} images")
    if len(candidates) == 0:
        raise ValueError("there are no images")
    for image, (candidate, several) in enumerate(zip(candidates, references, strict=True)):
        if isinstance(several, str) or any(isinstance(caption, str) for caption in (candidate, *several)):
            raise ValueError(f"image {image}: a caption is a string; wanted a list of tokens")
        if len(several) == 0:
            raise ValueError(f"image {image}: has no reference")
