"""How many images a training set of any size gives to what: shares, batches, steps. Arithmetic, nothing is loaded."""

BATCH = (16, 128)  # images, at least (of so many as there are) and at most, where none is given
ROUND = 25  # steps between two looks at the held-out images, at least
PASSES, STEPS = 100, 3000  # of a training, at most, whichever is more, where no limit is given


def share_sizes(n: int, held_out: float, shares: list[int]) -> tuple[int, dict[int, int]]:
    """How many of n images are held out, and how many train in each share."""
    count = round(n * held_out)
    return count, {share: round((n - count) * share / 100) for share in shares}


def batch_size(images: int) -> int:
    """Images of a batch that fits a training set, whose smallest share has so many: a tenth of them, 16 to 128."""
    low, high = BATCH
    return max(1, min(images, high, max(low, images // 10)))


def step_limit(batches: int, epochs: int | None) -> int:
    """Steps of a training at most, from the batches of a pass over all training images and the limit in passes."""
    return max(PASSES * batches, STEPS) if epochs is None else epochs * batches


def round_steps(held_out: int, batch: int) -> int:
    """Steps between two looks at so many held-out images: as many images are seen, so that looking stays cheap."""
    return max(ROUND, -(-held_out // batch))
