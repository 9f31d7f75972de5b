"""Means, standard deviations and covariances of more rows than fit into memory."""

import torch

ROWS_AT_ONCE = 8192  # in one product: float32 sums stay short, their totals are kept in float64
COLUMNS_AT_ONCE = 256  # of a symmetric product, from the diagonal down: little is computed twice


class RunningMoments:
    """Mean and standard deviation of each feature, block by block, in float64.

    Blocks are merged by their means and squared deviations (Chan, Golub and LeVeque 1979), after the first row has been
    taken from all, so that a large common offset costs no digits and a constant feature has deviation 0 exactly. The
    order and the size of the blocks move the results by rounding alone (1e-12).
    """

    def __init__(self, width: int):
        self.width, self.count = width, 0
        self.origin = self.offset = self.squares = torch.zeros(0, dtype=torch.float64)  # until the first row

    def update(self, rows: torch.Tensor) -> None:
        """Add rows (N, width), any floating type. Raises ValueError naming the first row that is not finite."""
        _check_shape(rows, self.width)
        for given in rows.split(ROWS_AT_ONCE) if len(rows) else ():
            if self.count == 0:
                self.origin = given[0].double()
                self.offset, self.squares = torch.zeros_like(self.origin), torch.zeros_like(self.origin)
            block = given.double() - self.origin
            mean = block.mean(0)
            _check_finite(mean, given, self.count)
            delta, total = mean - self.offset, self.count + len(block)
            self.squares += (block - mean).square().sum(0) + delta.square() * (self.count * len(block) / total)
            self.offset += delta * (len(block) / total)
            self.count = total

    @property
    def mean(self) -> torch.Tensor:
        """(width,) float64. Raises ValueError before the first row."""
        _check_count(self.count)
        return self.origin + self.offset

    @property
    def std(self) -> torch.Tensor:
        """(width,) float64, of the population (divided by the number of rows); exactly 0 for a constant feature."""
        _check_count(self.count)
        return (self.squares / self.count).sqrt()


class RunningCovariance:
    """Sums and products of features, block by block: products of up to 8,192 rows in the rows' type, totals in float64.

    Meant for rows whose means are not large against their deviations, as standardised ones: the covariance is the mean
    product less the product of the means.
    """

    def __init__(self, width: int, device="cpu"):
        self.width, self.count = width, 0
        self.sum = torch.zeros(width, dtype=torch.float64, device=device)
        self.lower = torch.zeros(width, width, dtype=torch.float64, device=device)  # valid on and below the diagonal

    def update(self, rows: torch.Tensor) -> None:
        """Add rows (N, width), float32 or float64. Raises ValueError naming the first row that is not finite."""
        _check_shape(rows, self.width)
        for block in rows.split(ROWS_AT_ONCE):
            total = block.sum(0)
            _check_finite(total, block, self.count)
            for i in range(0, self.width, COLUMNS_AT_ONCE):
                self.lower[i:, i : i + COLUMNS_AT_ONCE] += block[:, i:].T @ block[:, i : i + COLUMNS_AT_ONCE]
            self.sum += total
            self.count += len(block)

    @property
    def mean(self) -> torch.Tensor:
        """(width,) float64. Raises ValueError before the first row."""
        _check_count(self.count)
        return self.sum / self.count

    def about(self, centre: torch.Tensor) -> torch.Tensor:
        """Sum over rows of (row - centre) (row - centre)^T, (width, width) float64. centre: (width,)."""
        products = self.lower.tril() + self.lower.tril(-1).T
        cross = torch.outer(self.sum, centre)
        return products - cross - cross.T + self.count * torch.outer(centre, centre)

    @property
    def mean_square(self) -> float:
        """Mean over rows and features of the squared values. Raises ValueError before the first row."""
        _check_count(self.count)
        return float(self.lower.diagonal().mean()) / self.count

    @property
    def covariance(self) -> torch.Tensor:
        """(width, width) float64, of the population. Raises ValueError before the first row."""
        return self.about(self.mean) / self.count


def _check_count(count):
    if count == 0:
        raise ValueError("no rows were given yet; wanted at least one")


def _check_shape(rows, width):
    if rows.ndim != 2 or rows.shape[1] != width or not rows.is_floating_point():
        raise ValueError(f"rows: {rows.dtype} of shape {tuple(rows.shape)}; wanted floating point, (N, {width})")


def _check_finite(total, rows, before):
    """ValueError if a row is not finite. total: a sum or mean of rows, which shows it; before: rows seen earlier."""
    if torch.isfinite(total).all():
        return
    bad = ~torch.isfinite(rows).all(1)
    if bad.any():
        first = before + int(bad.int().argmax())
        raise ValueError(f"rows: {int(bad.sum())} of a block of {len(rows)} are not finite; the first is row {first}")
