"""The networks of the ladder: post (B, tokens, width) -> pre (B, patches, features), both standardised.

A network adds to what ridge makes of the same tokens (`BeyondRidge`), and begins with adding nothing: so what it leaves
unexplained is ridge's at first, and the best of its training is no worse. Where ridge has too few images for its
inputs, the network learns alone: what ridge has learned by heart would stay in all that the two put out.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, cast

from torch import Tensor, arange, as_tensor, autocast, empty, equal, nn

from lossmap.errors import LossmapError

NETWORKS = ("mlp", "transformer")


def build_network(architecture: Mapping[str, Any], pre_shape, post_shape, blocks=None) -> nn.Module:
    """A network with random weights, drawn from torch's current generator.

    Parameters: architecture, {"kind": "mlp", "widths": [...], "dropout"} (see `TokenMLP`) or {"kind": "transformer",
        "width", "layers", "heads", "dropout"} (see `SequenceTransformer`). pre_shape (patches, features), what it puts
        out; post_shape (tokens, width), what it reads. blocks (tokens, patches per token), which raster patches each
        token stands for; None where tokens have no place. A transformer learns places and doesn't look at blocks.
    Returns: a module, (B, tokens, width) -> (B, patches, features), whose `first` is the linear layer that post meets
        and `last` the one that gives the patches.
    Raises: LossmapError if the architecture is unknown or impossible, or blocks don't hold each patch once.
    """
    settings = dict(architecture)
    kind = settings.pop("kind", None)
    if kind not in NETWORKS:
        raise LossmapError(f"network: kind is {kind!r}. Choose one of {', '.join(NETWORKS)}.")
    try:
        if kind == "mlp":
            return TokenMLP(pre_shape, post_shape, blocks=blocks, **settings)
        return SequenceTransformer(pre_shape, post_shape, **settings)
    except TypeError as error:
        raise LossmapError(f"network: {architecture} can't be built ({error}). Correct its settings.") from None


def parameters(module: nn.Module) -> int:
    """How many numbers were learned: those of the module's state that are no indices."""
    return sum(values.numel() for values in module.state_dict().values() if values.is_floating_point())


class BeyondRidge(nn.Module):
    """What ridge makes of post, plus what a network does. Ridge stays as it was fitted; the network alone learns.

    Parameters: ridge, `linear.Ridge` fitted on the same images; network, of `build_network` for the same shapes. alone:
        whether it is, for now, the network without ridge.
    """

    def __init__(self, ridge: nn.Module, network: nn.Module, alone: bool = False):
        super().__init__()
        self.ridge, self.network, self.alone = ridge, network, alone

    def silence(self) -> "BeyondRidge":
        """Let the network add nothing: its last layer becomes zero, and learns from there."""
        for values in cast(Any, self.network).last.parameters():
            nn.init.zeros_(values)
        return self

    def forward(self, post: Tensor) -> Tensor:
        """post (B, tokens, width) -> (B, patches, features)."""
        learned = self.network(post)
        if self.alone:
            return learned
        with autocast(post.device.type, enabled=False):  # bfloat16 would spoil a solution in closed form
            return self.ridge(post.float()) + learned


class Perceptron(nn.Module):
    """`first`, then the layers of `rest`, which may be none."""

    first: nn.Linear
    rest: nn.Sequential

    @property
    def last(self) -> nn.Linear:
        """The layer that gives the patches."""
        return cast(nn.Linear, self.rest[-1]) if len(self.rest) else self.first


class Written(nn.Module):
    """What ends with the pair of layers `write`."""

    write: nn.Sequential

    @property
    def last(self) -> nn.Linear:
        """The layer that gives the patches."""
        return cast(nn.Linear, self.write[-1])


class TokenMLP(Perceptron):
    """The same multilayer perceptron on every token; it puts out the patches that the token stands for.

    Linear layers of the given widths, with LayerNorm, GELU and dropout after each but the last. A token that stands for
    a block of g patches gives g * features numbers, which go to the block's patches. Tokens after the last block (a
    learned line end, as LLaVA-NeXT's) hold no patch and are not read. Where tokens have no place, a learned linear map
    over the sequence axis, tokens -> patches, comes first, the first layer's output gets a learned vector for each
    patch, and g is 1.

    Source: Li et al. 2025, arXiv:2509.11986, section 4 (widths 4096, 2048 for LLaVA).
    """

    def __init__(self, pre_shape, post_shape, widths: list[int], dropout: float = 0.1, blocks=None):
        super().__init__()
        (patches, self.features), (tokens, width) = pre_shape, post_shape
        self.across: nn.Linear | None = None
        self.place: nn.Parameter | None = None
        order, per_token = None, 1
        if blocks is not None:
            blocks = as_tensor(blocks, device="cpu")  # also where weights are only counted, on the meta device
            if not equal(blocks.flatten().sort().values, arange(patches, device="cpu")) or len(blocks) > tokens:
                raise LossmapError(
                    f"network: blocks of shape {tuple(blocks.shape)} don't give each of {patches} patches to one of"
                    f" {tokens} tokens. They come from the connector; for tokens without a place leave them out."
                )
            self.blocks, per_token = blocks.shape
            if not equal(blocks.flatten(), arange(patches, device="cpu")):
                order = blocks.flatten().argsort()  # where raster patch p lies among the blocks' patches
        self.register_buffer("order", order, persistent=False)
        widths = [width, *widths, per_token * self.features]
        if blocks is None:
            self.across = nn.Linear(tokens, patches, bias=False)
            self.place = learned_places(patches, widths[1])
        self.first = nn.Linear(widths[0], widths[1])
        self.rest = hidden_layers(widths[1:], dropout)

    def forward(self, post: Tensor) -> Tensor:
        """post (B, tokens, width) -> (B, patches, features)."""
        if self.across is None:
            hidden = self.first(post[:, : self.blocks])
        else:
            hidden = self.first(self.across(post.transpose(1, 2)).transpose(1, 2)) + self.place
        patches = self.rest(hidden).reshape(len(post), -1, self.features)
        return patches if self.order is None else patches.index_select(1, self.order)


class SequenceTransformer(Written):
    """All tokens to all patches: a pre-norm transformer encoder, then a learned map over the sequence axis.

    With H = width: D -> 2H -> H, learned positions, `layers` encoder layers of `heads` heads and feed-forward 4H, the
    map tokens -> 2 patches -> patches on every feature, then H -> 2H -> features; GELU between the two linear maps of
    each pair. No norm follows the last layer.

    Source: Li et al. 2025, arXiv:2509.11986, section 4 (H = 2048, 16 layers, 16 heads: 844M for Idefics2, 843M for
    Qwen2.5-VL).
    """

    def __init__(self, pre_shape, post_shape, width: int, layers: int, heads: int, dropout: float = 0.1):
        super().__init__()
        (patches, features), (tokens, post_width) = pre_shape, post_shape
        check_heads(width, heads)
        self.first = nn.Linear(post_width, 2 * width)
        self.second = nn.Sequential(nn.GELU(), nn.Linear(2 * width, width))
        self.position = learned_places(tokens, width)
        self.encoder = encoder(width, layers, heads, dropout)
        self.across = pair(tokens, 2 * patches, patches)
        self.write = pair(width, 2 * width, features)

    def forward(self, post: Tensor) -> Tensor:
        """post (B, tokens, D) -> (B, patches, features)."""
        tokens = self.encoder(self.second(self.first(post)) + self.position)
        patches = self.across(tokens.transpose(1, 2)).transpose(1, 2)
        return self.write(patches)


def check_heads(width: int, heads: int) -> None:
    """Raises: LossmapError if so many heads can't share a width."""
    if width % heads:
        raise LossmapError(f"network: width {width} isn't a multiple of heads, {heads}. Change one of them.")


def hidden_layers(widths: list[int], dropout: float) -> nn.Sequential:
    """Linear layers of these widths, the first of which is that of what comes in; before each: norm, GELU, dropout."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.LayerNorm(before), nn.GELU(), nn.Dropout(dropout), nn.Linear(before, after)]
    return nn.Sequential(*layers)


def encoder(width: int, layers: int, heads: int, dropout: float) -> nn.Sequential:
    """Pre-norm transformer layers, built one by one: nn.TransformerEncoder copies one layer, and all would start with
    the same weights."""
    return nn.Sequential(
        *(
            nn.TransformerEncoderLayer(
                width, heads, 4 * width, dropout, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(layers)
        )
    )


def learned_places(n: int, width: int) -> nn.Parameter:
    """A learned vector for each of n places. Drawn in place: on the meta device, torch.randn and a product import a
    compiler, two seconds of every job that loads a network."""
    return nn.Parameter(nn.init.normal_(empty(n, width), std=0.02))


def pair(before: int, between: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(before, between), nn.GELU(), nn.Linear(between, after))
