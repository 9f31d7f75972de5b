"""A plan as text: what is wanted, how long it takes, whether it fits."""

from itertools import groupby
from textwrap import wrap

from lossmap.data.counts import Count
from lossmap.study.cost.extraction import stored_datasets
from lossmap.study.cost.models import LanguageCost, VisionCost
from lossmap.study.cost.rates import FLOAT32_SLOWER, Rates
from lossmap.study.cost.speech import PROMPT_TOKENS
from lossmap.study.cost.work import EXTRACTION, Work

WIDTH = 110
SOURCES = {  # of a number of images that may yet change: its mark, and what the mark means
    "published": ("*", "as published: the annotations are not there yet"),
    "as configured": ("+", "at most, by the configuration: the annotations are not there yet"),
    "unknown": ("?", "the annotations are not there, and the size of this dataset is not known: in no sum below"),
}
PREFIXES = {"P": 1e15, "T": 1e12, "G": 1e9, "M": 1e6, "k": 1e3, "": 1}


def describe_models(config: dict, vision: dict[str, VisionCost], language: dict[str, LanguageCost]) -> list[str]:
    """A table of models: shapes, operations, memory on a GPU."""
    if not vision:
        return []
    batch = config["extraction"]["batch_size"]
    models = list(vision.values())
    operations, operation = _scaled([one.flops for one in models])
    weights, unit = _scaled([one.weights for one in models])
    activations = [f"{one.at_once(batch) * one.activations / PREFIXES[unit]:,.1f}" for one in models]
    memory = [f"{(one.weights + one.at_once(batch) * one.activations) / PREFIXES[unit]:,.1f}" for one in models]
    columns = {
        "model": list(vision),
        "input": [one.seen for one in models],
        "pre": [_by((one.patches, one.pre_shape[1])) for one in models],
        "post": [_by(one.post_shape) for one in models],
        "vision side": [f"{one.parameters / 1e6:,.1f} M" for one in models],
        f"{operation}FLOP/image": operations,
        f"weights {unit}B": weights,
        f"+ batch {unit}B": activations,
        f"= GPU memory {unit}B": memory,
    }
    lines = ["MODELS", *_table(columns)]
    lines += _text(
        f"GPU memory of extraction: weights in {config['extraction']['compute_dtype']}, and what a batch of"
        f" {batch} images holds at once on its way."
    )
    for name, one in vision.items():
        if one.square is not None:
            tokens = one.post_shape[0]
            lines += _text(f"{name}: {tokens:,} tokens of an image of {one.seen}; in one square view {one.square:,}.")
    if language:
        sizes = ", ".join(f"{name} {one.parameters / 1e6:,.1f} M" for name, one in language.items())
        lines += _text(f"Parameters of the language models, in {config['generation']['compute_dtype']}: {sizes}.")
    return lines


def describe_embeddings(config: dict, counts: dict[str, Count], planned: list[Work], unplanned: list[str]) -> list[str]:
    """A table of embedding stores, and their sum. unplanned: models whose configuration can't be had."""
    extraction, works = [work for work in planned if work.kind == EXTRACTION], []
    for dataset in stored_datasets(config):
        known = [work for work in extraction if work.dataset == dataset]
        works += known + [Work("", name, dataset) for name in unplanned]
        if not known and not unplanned:
            works.append(Work("", "each", dataset))
    sides = [[work.pre for work in extraction], [work.post for work in extraction]]
    _, unit = _scaled([*sides[0], *sides[1]])
    totals = [sum(work.images * getattr(work, side) for work in extraction) for side in ("pre", "post")]
    _, unit_all = _scaled([sum(totals)])

    def cells(value, total=None, unit="", form=",.1f"):
        """A column: of each work, "?" where nothing is known, and the sum."""
        column = [value(work) if work.kind else None for work in works]
        cell = "{:" + form + "}"
        return [
            *("?" if one is None else cell.format(one / PREFIXES[unit]) for one in column),
            "" if total is None else cell.format(total / PREFIXES[unit]),
        ]

    columns = {
        "dataset": [*(work.dataset for work in works), "total"],
        "images": [*(_images(counts[work.dataset]) for work in works), ""],
        "model": [*(work.model for work in works), ""],
        "parts": cells(lambda work: len(work.outputs), sum(len(work.outputs) for work in extraction), form=",.0f"),
        f"pre {unit}B": cells(lambda work: work.pre, unit=unit, form=",.2f"),
        f"post {unit}B": cells(lambda work: work.post, unit=unit, form=",.2f"),
        f"{unit}B/image": cells(lambda work: work.pre + work.post, unit=unit, form=",.2f"),
        f"pre {unit_all}B": cells(lambda work: work.images * work.pre, totals[0], unit_all),
        f"post {unit_all}B": cells(lambda work: work.images * work.post, totals[1], unit_all),
        f"disk {unit_all}B": cells(lambda work: work.images * (work.pre + work.post), sum(totals), unit_all),
        "GPU hours": [
            *(_hours(work.seconds) if work.kind else "?" for work in works),
            _hours(sum(work.seconds for work in extraction)),
        ],
    }
    lines = [f"EMBEDDINGS ({config['extraction']['dtype']}; a part is a job)", *_table(columns, ("dataset", "model"))]
    used = {counts[dataset].source for dataset in stored_datasets(config)}
    return lines + [f"{mark} {meaning}" for source, (mark, meaning) in SOURCES.items() if source in used]


def describe_work(works: list[Work]) -> list[str]:
    """A table of all that needs a GPU, by kind and model, and its sum."""
    groups = [list(group) for _, group in groupby(works, key=lambda work: (work.kind, work.model))]
    if not groups:
        return []
    groups.append(works)

    def sums(value):
        return [sum(value(work) for work in group) for group in groups]

    operations, operation = _scaled(sums(lambda work: work.flops))
    memory, memory_unit = _scaled([max(work.memory for work in group) for group in groups])
    reads, read = _scaled(sums(lambda work: work.reads))
    disk, unit = _scaled(sums(lambda work: sum(work.outputs.values())))
    columns = {
        "work": [*(group[0].kind for group in groups[:-1]), "total"],
        "model": [*(group[0].model for group in groups[:-1]), ""],
        "jobs": [f"{count:,}" for count in sums(lambda work: sum(work.jobs.values()))],
        f"{operation}FLOP": operations,
        "GPU hours": [_hours(seconds) for seconds in sums(lambda work: work.seconds)],
        f"GPU memory {memory_unit}B": [*memory[:-1], ""],
        f"reads {read}B": reads,
        f"disk {unit}B": disk,
    }
    return ["ALL WORK FOR A GPU", *_table(columns, ("work", "model"))]


def describe_rates(rates: Rates, speaks: bool) -> list[str]:
    """What hours and memory are made of."""
    text = (
        f"Hours are of one GPU that sustains {rates.flops / 1e12:,.4g} TFLOP/s in bfloat16 and float16 (--rate; the"
        f" default is 40% of an A100's 312), {rates.flops / 1e12 / FLOAT32_SLOWER:,.3g} in float32, and"
        f" {rates.bandwidth / 1e12:,.3g} TB/s from its memory (--bandwidth; the default is 40% of an A100's 2.0)."
        " Decoding of images (about 11 ms each on one core) and reading from disk go on beside it, and may take longer."
        " GPU memory is an estimate, to which CUDA adds about 0.5 GB. Training may stop earlier than is reckoned here."
    )
    if speaks:
        text += f" Prompts are taken as {PROMPT_TOKENS} tokens and the image's, answers as long as they may become."
    return _text(f"{text} Scores, tables and figures are short jobs on a CPU and are not counted.")


def describe_notes(notes: list[str]) -> list[str]:
    """What could not be planned, and why."""
    return [
        line for note in notes for line in wrap(f"NOTE: {note}", WIDTH, subsequent_indent="  ", break_long_words=False)
    ]


def describe_disk(works: list[Work], missing: int, folder: str, free: int, whole: bool) -> list[str]:
    """Whether what is missing fits. missing: bytes of outputs that are not there yet; free: bytes, where folder is;
    whole: whether all of the study could be planned."""
    total = sum(sum(work.outputs.values()) for work in works)
    wanted, there, room, lacking = map(in_bytes, (total, total - missing, free, max(missing - free, 0)))
    done = f", {there} of it already there" if missing < total else ""
    fits = "It fits." if whole else "What could be planned fits, but see the notes."
    verdict = fits if missing <= free else f"IT DOES NOT FIT: {lacking} are lacking."
    return [f"DISK: {wanted}{done}; free in {folder}: {room}. {verdict}"]


def in_bytes(size: float) -> str:
    """Bytes for people: 12 B, 24.6 MB, 1,252.8 GB; disks are compared in GB, however large."""
    prefix = next((prefix for prefix in "GMk" if size >= PREFIXES[prefix]), "")
    return f"{size / PREFIXES[prefix]:,.{1 if prefix else 0}f} {prefix}B"


def _table(columns: dict[str, list[str]], left: tuple[str, ...] = ("model",)) -> list[str]:
    """Aligned columns, a rule before the last row if that is a total. A first cell that repeats is shown once, and so
    is what follows from it."""
    names = list(columns)
    widths = [max(map(len, [name, *cells])) for name, cells in columns.items()]
    rows = list(zip(*columns.values(), strict=True))

    def line(cells):
        padded = (
            cell.ljust(width) if name in left else cell.rjust(width)
            for name, cell, width in zip(names, cells, widths, strict=True)
        )
        return "  ".join(padded).rstrip()

    lines, above = [line(names)], None
    for row in rows:
        if row[0] == "total":
            lines.append("-" * (sum(widths) + 2 * (len(widths) - 1)))
        repeats = above is not None and row[0] == above[0]
        lines.append(
            line(
                [
                    "" if repeats and name in ("dataset", "images", "work") else cell
                    for name, cell in zip(names, row, strict=True)
                ]
            )
        )
        above = row
    return lines


def _scaled(values: list[float]) -> tuple[list[str], str]:
    """Numbers in one unit, nothing for 0, and its prefix: the largest is at least 2, if it can be."""
    largest = max(values, default=0)
    prefix = next((prefix for prefix, size in PREFIXES.items() if largest >= 2 * size), "")
    return [f"{value / PREFIXES[prefix]:,.1f}" if value else "" for value in values], prefix


def _text(text: str) -> list[str]:
    return wrap(text, WIDTH)


def _images(count: Count) -> str:
    mark = SOURCES.get(count.source, (" ", ""))[0]
    return mark if count.images is None else f"{count.images:,} {mark}"


def _by(sizes: tuple[int, ...]) -> str:
    return " x ".join(map(str, sizes))


def _hours(seconds: float) -> str:
    return "<0.01" if 0 < seconds < 36 else f"{seconds / 3600:,.2f}"
