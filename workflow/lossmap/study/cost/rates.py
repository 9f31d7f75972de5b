"""What a GPU sustains, and how long it takes by that."""

from dataclasses import dataclass

# An A100's float32 is a sixteenth of its bfloat16, of float16 too.
FLOAT32_SLOWER = 16


@dataclass(frozen=True)
class Rates:
    """What a GPU sustains. flops: operations per second in bfloat16. bandwidth: bytes per second from its memory."""

    flops: float
    bandwidth: float

    def seconds(self, flops: float, dtype: str = "bfloat16") -> float:
        """Time for this many operations."""
        return flops * (FLOAT32_SLOWER if dtype == "float32" else 1) / self.flops
