"""What may be concluded about a connector, in words, from the numbers that stand beside them.

The best decoder's FVU bounds the loss from above: what is lost, no function of the output brings back. How much
of it is the decoders' own weakness, lossless controls tell: there nothing is lost, so all that the same ladder leaves
is its own fault. While the ladder still falls the bound holds, but neither number is final.
"""

from dataclasses import dataclass

KNOWS_NOTHING = 0.98  # FVU that a control without any information must reach
CARRIES = 100  # times the last size: further than that, no curve of few points is followed


@dataclass(frozen=True)
class Interval:
    """A share of the variance (1 = all of it), or a difference of two, with its bootstrap interval over images."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Reached:
    """The best that the ladder reaches on a connector: by which decoder, its FVU, and how many numbers a post has.

    further: the FVU that ten times the parameters and images would leave, if the ladder's curves went on as they fell;
    0 where it has no such curves.
    """

    connector: str
    decoder: str
    fvu: Interval
    numbers: int
    further: float = 0.0


@dataclass(frozen=True)
class Fall:
    """A curve of FVU that may yet end below the best known, and its last step. by: "capacity" or "data".

    needed: how many times the last size it would take, if the curve went on as a power law, until twice as much lowers
    it by no more than the tolerance; then: the FVU that it would have reached.
    """

    connector: str
    by: str
    start: str
    end: str
    before: float
    after: float
    needed: float = 1.0
    then: float = 0.0


@dataclass(frozen=True)
class Unfinished:
    """A network that has not converged, after so many passes; needed: how many times as many it would take by its own
    curve, nan where it never fell below ridge and has none."""

    connector: str
    network: str
    passes: float
    needed: float


@dataclass(frozen=True)
class Untested:
    """A connector on which the ladder has no two sizes of a network, by "capacity", no two shares, by "data", or no
    network that learned more than ridge from so few images, by "learning"."""

    connector: str
    by: str


@dataclass(frozen=True)
class Verdict:
    """All that is known about one model's connector. What the study doesn't have is None or empty.

    own: the model's connector; lossless: the controls without loss, of which hardest has the highest held-out error;
    difference: own less hardest. linear: the control that keeps the leading principal components of each block of
    patches; linear_difference: own less linear. position: the output for another image. nothing: for another image and
    patch. falls, unfinished and untested: where own or hardest may yet fall, and where that can't be told. tolerance:
    what a fall by twice the size must exceed, as a share of the variance.
    """

    model: str
    dataset: str
    images: int
    pre_numbers: int
    own: Reached
    lossless: tuple[Reached, ...] = ()
    hardest: Reached | None = None
    difference: Interval | None = None
    linear: Reached | None = None
    linear_difference: Interval | None = None
    position: Reached | None = None
    nothing: Reached | None = None
    falls: tuple[Fall, ...] = ()
    untested: tuple[Untested, ...] = ()
    unfinished: tuple[Unfinished, ...] = ()
    tolerance: float = 0.01

    def __str__(self) -> str:
        return sentences(self)

    @property
    def settled(self) -> str:
        """ "yes", "no", or "not tested"."""
        return "no" if self.falls or self.unfinished else "not tested" if self.untested else "yes"

    @property
    def lost(self) -> tuple[float, float]:
        """Between what share of the variance and what: from what ten times the ladder would leave to the bound.

        This, not the bootstrap interval, is what studies of more or fewer images of the same model have in common.
        """
        return min(self.own.further, self.own.fvu.low), self.own.fvu.high

    @property
    def beyond(self) -> tuple[float, float]:
        """Between what difference to hardest and what, with ten times the ladder on either side."""
        if self.hardest is None or self.difference is None:
            raise ValueError("there is no lossless control to compare with")
        low, high = self.lost
        least, most = min(self.hardest.further, self.hardest.fvu.low), self.hardest.fvu.high
        return min(low - most, self.difference.low), max(high - least, self.difference.high)


def sentences(verdict: Verdict) -> str:
    """The verdict as a person would quote it: one paragraph, of one line."""
    return f"**{verdict.model}**: {summary(verdict)}. {details(verdict)}"


def summary(verdict: Verdict) -> str:
    """The verdict in a clause: the bound, against the matched control, and whether more would lower it."""
    own, difference = verdict.own.fvu, verdict.difference
    bound = f"at most {percent(own.value)} lost" if own.value < 1 else "no bound on what is lost"
    against = "with no lossless control to compare with"
    if difference is not None:
        size, control = points_of(abs(difference.value)), "the matched lossless control"
        against = f"about as much as {control}"
        if difference.low > 0 or difference.high < 0:
            against = f"{size} {'more' if difference.low > 0 else 'less'} than {control}"
    title = {"yes": "settled", "no": "not settled", "not tested": "not tested whether settled"}[verdict.settled]
    if verdict.settled == "no":
        title += f": {_why_not(verdict)}"
    return f"{bound}, {against}; {title}{'; caution: the upper control is explained, too' if _nothing(verdict) else ''}"


def details(verdict: Verdict) -> str:
    """All that the verdict rests on: a paragraph, of one line."""
    parts = [_bound(verdict), _lossless(verdict), _shape(verdict), _nothing(verdict), _settled(verdict)]
    text = " ".join(part for part in parts if part)
    return text[:1].upper() + text[1:]


def _why_not(verdict: Verdict) -> str:
    """What keeps a verdict from being settled: "more data still helps"."""
    helps = {"capacity": "a larger decoder still helps", "data": "more data still helps"}
    own = verdict.own.connector
    each = [helps[fall.by] + ("" if fall.connector == own else " on the control") for fall in verdict.falls]
    if count := len(verdict.unfinished):
        each.append(f"{count} network{'s have' if count > 1 else ' has'} not converged")
    return ", ".join(each)


def percent(share: float) -> str:
    """0.0704 -> "7.0%"; with more decimals below one percent, and "under 0.001%" where even three show nothing."""
    return "under 0.001%" if 0 <= share < 0.000005 else f"{100 * share:.{_decimals(share)}f}%"


def points(difference: float) -> str:
    """0.01 -> "1 point", 0.025 -> "2.5 points"."""
    return f"{100 * difference:g} point{'s' * (round(100 * difference, 9) != 1)}"


def percent_within(share: Interval) -> str:
    """Value and interval, with the same decimals: "7.0% [6.6, 7.4]"."""
    return f"{percent(share.value)} {_brackets(share)}"


def points_of(difference: float) -> str:
    """A difference of shares in percentage points, as many decimals as `percent` has: 0.0396 -> "4.0 points"."""
    return f"{100 * difference:.{_decimals(difference)}f} points"


def points_within(difference: Interval) -> str:
    """A difference of shares in percentage points: "4.0 points [3.6, 4.3]"."""
    return f"{points_of(difference.value)} {_brackets(difference)}"


def _brackets(interval: Interval) -> str:
    digits = _decimals(interval.value)
    return f"[{100 * interval.low:.{digits}f}, {100 * interval.high:.{digits}f}]"


def _decimals(share: float) -> int:
    return 1 if abs(share) >= 0.01 else 2 if abs(share) >= 0.001 else 3


def _bound(verdict: Verdict) -> str:
    own, where = verdict.own, f"on {verdict.dataset} (n = {verdict.images:,})"
    if own.fvu.value >= 1:
        return (
            f"no bound, for the best decoder, {own.decoder}, leaves {percent_within(own.fvu)} of the variance "
            f"unexplained {where}: no better than predicting the mean."
        )
    text = (
        f"at most {percent_within(own.fvu)} of the variance is lost at the connector, {where}: so much the best "
        f"decoder, {own.decoder}, leaves unexplained."
    )
    if verdict.position is None:
        return text
    position = percent(verdict.position.fvu.value)
    if own.fvu.value >= verdict.position.fvu.value - verdict.tolerance:
        return f"{text} That is no less than with another image's output, which carries positions only ({position})."
    return f"{text} With another image's output, which carries positions only, it is {position}."


def _lossless(verdict: Verdict) -> str:
    hardest, difference = verdict.hardest, verdict.difference
    if hardest is None or difference is None:
        return "The study has no lossless control, so how much of it is the decoder's weakness is not known."
    each = [f"{percent(c.fvu.value)} ({c.connector})" for c in verdict.lossless if c.connector != hardest.connector]
    each.append(f"{percent_within(hardest.fvu)} ({hardest.connector}, the matched control)")
    text = f"On lossless controls the ladder leaves {_listed(each)}"
    if difference.low > 0:
        so_far = "" if verdict.settled == "yes" else ", as far as this ladder goes,"
        return (
            f"{text}: the {points_within(difference)} beyond that are{so_far} the connector's own, if its map is no "
            "harder to undo than that control's."
        )
    compared = "more than" if difference.high < 0 else "as much as"
    return (
        f"{text}, {compared} on the connector (a difference of {points_within(difference)}): the decoder's "
        "weakness may account for all of it."
    )


def _shape(verdict: Verdict) -> str:
    own, linear = verdict.own, verdict.linear
    if own.numbers >= verdict.pre_numbers:
        return ""
    parts = [f"{verdict.pre_numbers:,} dimensions of an image enter the connector and {own.numbers:,} leave it."]
    if verdict.hardest is not None:
        parts.append(
            "No map of that shape is lossless for every input; the lossless controls have wider tokens "
            f"({verdict.hardest.numbers:,} dimensions), so they measure the decoder, not what a smaller output must "
            "lose."
        )
    gap = verdict.linear_difference
    if linear is not None and gap is not None:
        how = "less than" if gap.high < 0 else "more than" if gap.low > 0 else "about as much as"
        parts.append(
            f"Principal components of each block of patches, {linear.numbers:,} dimensions in all, leave "
            f"{percent_within(linear.fvu)} ({linear.decoder}): the connector seems to lose {how} this linear "
            f"compression (a difference of {points_within(gap)})."
        )
    return " ".join(parts)


def _nothing(verdict: Verdict) -> str:
    if verdict.nothing is None or verdict.nothing.fvu.value >= KNOWS_NOTHING:
        return ""
    left = percent(verdict.nothing.fvu.value)
    return (
        f"Caution: the upper control, which holds no information, is explained to all but {left}, which can't be: look "
        "for images that training and evaluation share."
    )


def _settled(verdict: Verdict) -> str:
    text = []
    if verdict.falls:
        text.append(
            f"But the ladder still falls, on {_listed([_fall(verdict, fall) for fall in verdict.falls])}. "
            f"{_consequence(verdict)}"
        )
    text += [_unfinished(verdict, network) for network in verdict.unfinished]
    text += [_lack(verdict, lack) for lack in verdict.untested]
    if not text:
        text.append(
            "Neither a network twice as large nor twice the images promises to lower this by more than "
            f"{points(verdict.tolerance)}."
        )
    if verdict.own.fvu.value < 1:
        text.append(_range(verdict))
    return " ".join(text)


def _lack(verdict: Verdict, lack: Untested) -> str:
    """What the ladder can't tell."""
    where = _named(verdict, lack.connector)
    if lack.by == "learning":
        return (
            f"No network recovers more than the linear decoder on {where}, nor on a lossless control: maybe there are "
            "too few images to learn from, so that flat curves tell nothing of what more would bring."
        )
    more = {"capacity": "a larger network", "data": "a larger share of the images"}[lack.by]
    return f"Whether {more} would do better on {where} was not tested."


def _fall(verdict: Verdict, fall: Fall) -> str:
    """A curve that falls, and what it would take until it no longer does, by its power law."""
    sizes = {"capacity": "parameters", "data": "images"}[fall.by]
    takes = f"about {_times(fall.needed)} the {sizes} would settle it, near {percent(fall.then)}"
    if fall.needed > CARRIES:
        takes = f"it would take over {CARRIES} times the {sizes}, further than two points carry"
    return (
        f"{_named(verdict, fall.connector)} with {fall.by} ({fall.start} {percent(fall.before)}, {fall.end} "
        f"{percent(fall.after)}; if it goes on so, {takes})"
    )


def _unfinished(verdict: Verdict, network: Unfinished) -> str:
    """A network that is no evidence, and what would make it one."""
    where = f"{network.network}, on {_named(verdict, network.connector)}, has not converged and is no evidence"
    if network.needed != network.needed:
        remedy = "Raise epochs, leave learning_rate to be found by trial, or give it more images."
        return f"{where}: it never fell clearly below ridge. {remedy}"
    takes = f"about {_times(network.needed)}" if network.needed <= CARRIES else f"over {CARRIES} times"
    return f"{where}: its error still fell after {network.passes:,.0f} passes. By its curve it takes {takes} as many."


def _range(verdict: Verdict) -> str:
    low, high = verdict.lost
    text = f"Nothing excludes that less is lost, down to none: between 0 and {percent(high)}"
    if low > 0:
        text = (
            "If these curves go on as power laws, a rough guide, ten times the parameters and images would leave "
            f"{percent(low)}: as far as this ladder can tell, between that and {percent(high)} is lost"
        )
    return f"{text}." if verdict.hardest is None else f"{text}, {_beyond(verdict)} beyond the control."


def _beyond(verdict: Verdict) -> str:
    low, high = (100 * value for value in verdict.beyond)
    return f"{low:z.1f} to {high:z.1f} points"


def _times(factor: float) -> str:
    return f"{factor:.2g} times" if factor < 10 else f"{factor:.0f} times"


def _named(verdict: Verdict, connector: str) -> str:
    return "the connector" if connector == verdict.own.connector else connector


def _consequence(verdict: Verdict) -> str:
    own = any(fall.connector == verdict.own.connector for fall in verdict.falls)
    control = any(fall.connector != verdict.own.connector for fall in verdict.falls)
    if not control:
        return "The bound holds, and a larger ladder may lower it."
    moves = "either way" if own else "up"
    bound = "The bound holds, and a larger ladder may lower it" if own else "The bound is settled"
    return f"{bound}; what is attributed to the connector may yet move {moves}."


def _listed(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
