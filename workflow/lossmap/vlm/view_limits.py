"""What a study may ask of a model's views.

`view` of a model is "processor": what the model's own processor does; "square": one square view of every image, as the
paper has it; or some of the processor's own limits, as {"max_pixels": 1003520} or {"tiles": 4}, the rest as it is.
The Snakefile imports this: nothing heavy.
"""

from collections.abc import Mapping

Limits = Mapping[str, int]
View = str | Limits
PROCESSOR, SQUARE = "processor", "square"
# How processors cut images, and the limits that a study may set.
LIMITS: dict[str, tuple[str, ...]] = {
    "native": ("min_pixels", "max_pixels"),
    "native_frames": ("min_pixels", "max_pixels"),
    "longest": ("longest_edge",),
    "longest_in_patches": ("longest_edge",),
    "budget": ("max_soft_tokens",),
    "bounded": ("shortest_edge", "longest_edge", "tiles"),
    "any_resolution": ("tiles",),
    "tiles": ("tiles",),
    "whole_first": ("tiles",),
    "slices": ("tiles",),
    "split": ("tiles",),
    "pan_and_scan": ("tiles",),
    "canvas": (),  # the tower knows grids by their numbers among all those of as many tiles as it takes
}

SOFT_TOKENS = (70, 140, 280, 560, 1120)  # between which Gemma 4's image processor lets one choose


def view_problem(where: str, way: str | None, view: View) -> str | None:
    """What is wrong with a view, by its limits alone; None if nothing.

    Parameters: where, what messages call the checkpoint; way, of the family, a key of LIMITS, or None.
    """
    if isinstance(view, str):
        known = (PROCESSOR, SQUARE)
        return None if view in known else f"{where}: view is {view!r}. Write processor, square, or limits."
    limits = LIMITS[way] if way else ()
    if unknown := [name for name in view if name not in limits]:
        none = "its tower takes the tiles that it makes" if way else "it makes one view of one size"
        choices = f"it knows {', '.join(limits)}" if limits else f"{none}, so that there are none"
        return (
            f"{where}: view asks for {unknown[0]}, which its image processor has no limit of; {choices}. Mend the"
            " model's view, or write processor or square."
        )
    tokens = view.get("max_soft_tokens", SOFT_TOKENS[0])
    if tokens not in SOFT_TOKENS:
        return f"{where}: view: max_soft_tokens is {tokens}; choose one of {', '.join(map(str, SOFT_TOKENS))}."
    small = [name for name, value in view.items() if value < 1]
    return f"{where}: view: {small[0]} is {view[small[0]]}; wanted 1 or more." if small else None
