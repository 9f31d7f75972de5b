"""How fast CIDEr is: the scorer against pycocoevalcap's, and the tokeniser against its Java one where Java is.

    python tests/bench/bench_cider.py [--quick] [--repeats 5]

5,000 captions with 5 references each, of 5 to 16 words drawn by Zipf's law from 10,000, so that images share words as
captions do. Each repeat times both one right after the other; the table shows the median and the range of the ratios of
their times, above 1 where ours is the faster. The scorers get the same tokens, in strings joined by blanks.
"""

import argparse
import shutil
import time

import numpy as np
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

from lossmap.measures.cider import cider_d
from lossmap.measures.ptb_tokens import ptb_tokens


def split(images, seed=0):
    """Candidates, one per image, and references, five per image, that share half of their words with the image."""
    rng = np.random.default_rng(seed)
    words = np.array(["".join(rng.choice(list("abcdefghijklmnoprstuvwy"), rng.integers(2, 9))) for _ in range(10_000)])

    def draw(n):
        return words[np.minimum(rng.zipf(1.3, n), len(words)) - 1]

    candidates, references = [], []
    for _ in range(images):
        about = draw(12)
        several = [
            " ".join(np.where(rng.random(n) < 0.5, np.resize(about, n), draw(n)))
            for n in rng.integers(5, 17, 6).tolist()
        ]
        candidates.append(several[0])
        references.append(several[1:])
    return candidates, references


def seconds(work):
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def ours(candidates, references):
    return cider_d([c.split() for c in candidates], [[r.split() for r in several] for several in references])


def theirs(candidates, references):
    return Cider().compute_score(dict(enumerate(references)), {i: [c] for i, c in enumerate(candidates)})[1]


def line(name, times):
    ratios = times[:, 1] / times[:, 0]
    middle = f"{np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f})"
    print(f"{name:10} {middle:>24} {np.median(times[:, 0]):>10.2f} {np.median(times[:, 1]):>10.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="500 captions")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    candidates, references = split(500 if options.quick else 5000)
    np.testing.assert_allclose(ours(candidates, references), theirs(candidates, references), rtol=0, atol=1e-9)
    print(f"{len(candidates):,} captions, 5 references each, {options.repeats} repeats: median (range)")
    print(f"{'':10} {'theirs/ours':>24} {'ours, s':>10} {'theirs, s':>10}")
    pairs = [
        [seconds(lambda: ours(candidates, references))[0], seconds(lambda: theirs(candidates, references))[0]]
        for _ in range(options.repeats)
    ]
    line("scorer", np.array(pairs))
    if shutil.which("java") is None:
        return print("tokeniser: no Java here")
    strings = [caption.capitalize() + "." for several in references for caption in several]
    captions = {0: [{"caption": string} for string in strings]}
    pairs = [
        [seconds(lambda: [ptb_tokens(s) for s in strings])[0], seconds(lambda: PTBTokenizer().tokenize(captions))[0]]
        for _ in range(options.repeats)
    ]
    line("tokeniser", np.array(pairs))


if __name__ == "__main__":
    main()
