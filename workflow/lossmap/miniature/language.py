"""What can be said and asked about a scene: captions, open questions, ten people's answers, four-option questions,
prompts."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lossmap.miniature.scenes import COLOURS, NUMBERS, PLACES, Digit, Scene

CAPTION_PROMPTS = (
    "Describe this image using one simple sentence.",
    "Describe this image using one simple sentences.",  # as the paper has it
)
SHORT_ANSWER = "\nAnswer the question using a single word or phrase."
LETTERS = ("A", "B", "C", "D")
KINDS = {"digit": 0.3, "colour": 0.22, "count": 0.12, "place": 0.14, "size": 0.1, "unanswerable": 0.12}  # shares
CATEGORIES = {  # of SEED-Bench, by question_type_id
    1: "Scene Understanding",
    2: "Instance Identity",
    3: "Instance Attributes",
    4: "Instance Location",
    5: "Instances Counting",
    6: "Spatial Relation",
    7: "Instance Interaction",
    8: "Visual Reasoning",
    9: "Text Understanding",
}
UNANSWERABLE = "unanswerable"

_QUESTIONS = {
    "digit by place": (
        "What digit is at the {place}?",
        "Which digit is in the {place}?",
        "What number is written at the {place}?",
    ),
    "digit by colour": ("What is the {colour} digit?", "Which digit is {colour}?"),
    "colour by place": ("What color is the digit at the {place}?", "What color is the number in the {place}?"),
    "colour by number": ("What color is the {number}?", "In which color is the {number} written?"),
    "count": ("How many digits are there?", "How many digits are in the image?", "How many digits do you see?"),
    "place by colour": ("Where is the {colour} digit?", "In which corner is the {colour} digit?"),
    "place by number": ("Where is the {number}?", "In which corner is the {number}?"),
    "size": ("Is the {colour} digit larger or smaller than the {other} digit?",),
}
_CHOICES = {
    1: "Which sentence describes this image best?",
    2: "What digit is at the {place}?",
    3: "What color is the digit at the {place}?",
    4: "Where is the {colour} digit?",
    5: "How many digits are there?",
    6: "Where is the {colour} digit relative to the {other} digit?",
    7: "What digit is directly {side} the {colour} digit?",
    8: "What color is the digit of the highest value?",
    9: "Which digits are in the {row} row, from left to right?",
}
_CAPTIONS = (
    "{placed}.",
    "There {are} {count}, {inked}.",
    "{sized} on a dark background.",
    "A picture of {inked}.",
    "The {noun} {numbers} in {colours}.",
    "{count} in the image, {placed}.",
)
_CHOICE_END = "\nAnswer with the option's letter from the given choices directly.\n"
_MARKS = {  # words of a question -> what it asks for; a digit, where it has none of them
    "size": {"larger"},
    "count": {"many"},
    "colour": {"color"},
    "place": {"where", "corner"},
}
_SIDES = ("left of", "right of", "above", "below")
_ROWS = ("top", "bottom")
_OTHER_WORDS = {
    "cyan": "light blue",
    "purple": "violet",
    "yellow": "gold",
    "white": "off white",
    "top left": "upper left",
    "top right": "upper right",
    "bottom left": "lower left",
    "bottom right": "lower right",
    "larger": "bigger",
    "smaller": "less large",
}


@dataclass(frozen=True)
class Question:
    """An open question. kind: a key of KINDS; digits: indices of the scene's digits that it is about (none if
    unanswerable)."""

    kind: str
    text: str
    answer: str
    digits: tuple[int, ...]


@dataclass(frozen=True)
class Choice:
    """A question with four options, one right. category: a key of CATEGORIES; answer: index of the right option;
    digits: indices of the scene's digits that it is about."""

    category: int
    text: str
    options: tuple[str, str, str, str]
    answer: int
    digits: tuple[int, ...]


def vocabulary() -> list[str]:
    """Every word and mark of the captions, questions, answers, options and prompts, sorted."""
    texts = [*CAPTION_PROMPTS, SHORT_ANSWER, _CHOICE_END, *LETTERS, *_CAPTIONS, *_CHOICES.values(), *_SIDES, *_ROWS]
    texts += [text for texts in _QUESTIONS.values() for text in texts]
    texts += [*COLOURS, *NUMBERS, *PLACES, *_OTHER_WORDS.values(), UNANSWERABLE]
    texts += [words.capitalize() for words in (*NUMBERS, *COLOURS, *PLACES, "larger", "smaller")]
    texts += [
        "Which option a an the A An is are digit digits large small larger smaller and , in it of 0 1 2 3 4 5 6 7 8 9"
    ]
    words = re.findall(r"\w+|[^\w\s]", " ".join(re.sub(r"{\w+}", " ", text) for text in texts))
    return sorted(set(words))


def short_answer_prompt(question: str) -> str:
    """The prompt of an open question."""
    return question + SHORT_ANSWER


def choice_prompt(question: str, options: tuple[str, ...]) -> str:
    """The prompt of a four-option question."""
    lines = "".join(f"\n{letter}. {option}" for letter, option in zip(LETTERS, options, strict=True))
    return question + lines + _CHOICE_END


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def _article(words: str) -> str:
    return ("an " if words.startswith("orange") else "a ") + words


def _inked(digits) -> str:
    return _listed([_article(f"{d.colour} {d.number}") for d in digits])


def captions(scene: Scene, rng: np.random.Generator, n: int = 5) -> list[str]:
    """n sentences about a scene (at most six), no two of one pattern."""
    digits = scene.digits
    count = f"{NUMBERS[len(digits)]} digit{'s' if len(digits) > 1 else ''}"
    parts = {
        "placed": _listed([f"{_article(f'{d.colour} {d.number}')} in the {d.place}" for d in digits]),
        "inked": _inked(digits),
        "sized": _listed([_article(f"{d.size} {d.colour} {d.number}") for d in digits]),
        "are": "are" if len(digits) > 1 else "is",
        "noun": "digits" if len(digits) > 1 else "digit",
        "numbers": _listed([d.number for d in digits]),
        "colours": _listed([d.colour for d in digits]),
        "count": count,
    }
    made = [_CAPTIONS[i].format(**parts) for i in rng.permutation(len(_CAPTIONS))[:n]]
    return [text[0].upper() + text[1:] for text in made]


def _pick(rng: np.random.Generator, items):
    return items[int(rng.integers(len(items)))]


def _unique_numbers(scene: Scene) -> list[int]:
    labels = [d.label for d in scene.digits]
    return [i for i, label in enumerate(labels) if labels.count(label) == 1]


def ask(scene: Scene, rng: np.random.Generator, kind: str | None = None) -> Question:
    """An open question about a scene.

    kind: a key of KINDS, drawn by its share if None. A scene without two digits of different size has no question
    about size, one of a digit in each corner none about a corner that is empty: such a scene is asked about another
    thing.
    """
    kind = str(rng.choice(list(KINDS), p=list(KINDS.values()))) if kind is None else kind
    digits, everything = scene.digits, tuple(range(len(scene.digits)))
    pairs = [(i, j) for i in everything for j in everything if digits[i].size != digits[j].size]
    if kind == "size" and not pairs:
        kind = "count"
    if kind == "size":
        i, j = _pick(rng, pairs)
        text = _QUESTIONS["size"][0].format(colour=digits[i].colour, other=digits[j].colour)
        return Question(kind, text, "larger" if digits[i].size == "large" else "smaller", (i, j))
    if kind == "count":
        return Question(kind, _pick(rng, _QUESTIONS["count"]), NUMBERS[len(digits)], everything)
    if kind == "unanswerable":
        return _ask_about_nothing(scene, rng)
    i, unique = int(rng.integers(len(digits))), _unique_numbers(scene)
    ways = {"digit": ("place", "colour"), "colour": ("place", "number"), "place": ("colour", "number")}[kind]
    way = ways[int(rng.random() < 0.4)]
    if way == "number" and i not in unique:
        way = ways[0]
    d = digits[i]
    text = _pick(rng, _QUESTIONS[f"{kind} by {way}"]).format(place=d.place, colour=d.colour, number=d.number)
    answer = {"digit": d.number, "colour": d.colour, "place": d.place}[kind]
    return Question(kind, text, answer, (i,))


def asks_for(text: str) -> str:
    """What an open question asks for: a key of KINDS, of an unanswerable one that of the question it looks like."""
    words = set(re.findall(r"\w+", text.lower()))
    for kind, marks in _MARKS.items():
        if words & marks:
            return kind
    return "digit"


def _ask_about_nothing(scene: Scene, rng: np.random.Generator) -> Question:
    """A question about a place, colour or number that the scene does not have."""
    places = [p for p in PLACES if p not in {d.place for d in scene.digits}]
    colours = [c for c in COLOURS if c not in {d.colour for d in scene.digits}]
    numbers = [n for n in NUMBERS if n not in {d.number for d in scene.digits}]
    names = [n for n in _QUESTIONS if " by " in n and (places or not n.endswith("place"))]
    text = _pick(rng, _QUESTIONS[_pick(rng, names)])
    text = text.format(place=_pick(rng, places or PLACES), colour=_pick(rng, colours), number=_pick(rng, numbers))
    return Question("unanswerable", text, UNANSWERABLE, ())


def ten_answers(question: Question, rng: np.random.Generator) -> list[str]:
    """What ten people answer: most of them the answer, some in other words, some wrong, some that it cannot be
    answered."""
    answer, said = question.answer, []
    alike = next(
        words for words in (NUMBERS, PLACES, tuple(COLOURS), ("larger", "smaller"), (UNANSWERABLE,)) if answer in words
    )
    for _ in range(10):
        chance = rng.random()
        if chance < 0.05:
            said.append(UNANSWERABLE)
        elif chance < 0.11:
            said.append(_pick(rng, NUMBERS if alike == (UNANSWERABLE,) else alike))
        elif chance < 0.2 and answer in NUMBERS:
            said.append(str(NUMBERS.index(answer)))
        elif chance < 0.2:
            said.append(_OTHER_WORDS.get(answer, answer))
        elif chance < 0.23 and answer != UNANSWERABLE:
            said.append(f"The {answer}" if answer in NUMBERS else answer.capitalize())
        else:
            said.append(answer)
    return said


def _neighbours(digits: tuple[Digit, ...]) -> list[tuple[int, int, int]]:
    """(i, j, side): digit i stands directly on this side (index into _SIDES) of digit j."""
    found = []
    for i, a in enumerate(digits):
        for j, b in enumerate(digits):
            if a.cell != b.cell and a.cell // 2 == b.cell // 2:
                found.append((i, j, 0 if a.cell < b.cell else 1))
            elif a.cell != b.cell and a.cell % 2 == b.cell % 2:
                found.append((i, j, 2 if a.cell < b.cell else 3))
    return found


def _changed(scene: Scene, rng: np.random.Generator) -> str:
    """The scene's digits listed with one of them in another colour or of another number."""
    said = [[d.colour, d.number] for d in scene.digits]
    i, what = int(rng.integers(len(said))), int(rng.integers(2))
    said[i][what] = _pick(rng, [w for w in ((*COLOURS,), NUMBERS)[what] if w != said[i][what]])
    return _listed([_article(f"{colour} {number}") for colour, number in said])


def categories_of(scene: Scene) -> list[int]:
    """The categories that a scene has a question of."""
    digits = scene.digits
    near = bool(_neighbours(digits))
    row = any(sum(d.cell // 2 == r for d in digits) == 2 for r in (0, 1))
    labels = [d.label for d in digits]
    highest = len(digits) > 1 and labels.count(max(labels)) == 1
    fits = {6: near, 7: near, 8: highest, 9: row}
    return [category for category in CATEGORIES if fits.get(category, True)]


def ask_choice(
    scene: Scene, rng: np.random.Generator, category: int | None = None, answer: int | None = None
) -> Choice:
    """A question with four different options.

    category: one of `categories_of(scene)`, at random if None; answer: index at which the right option stands, at
    random if None.
    """
    category = _pick(rng, categories_of(scene)) if category is None else category
    answer = int(rng.integers(4)) if answer is None else answer
    digits, everything = scene.digits, tuple(range(len(scene.digits)))
    i = int(rng.integers(len(digits)))
    about: tuple[int, ...] = (i,)
    pool: Sequence[str] = NUMBERS
    words = {"place": digits[i].place, "colour": digits[i].colour}
    if category == 1:
        about, right = everything, _inked(digits)
        drawn = {_changed(scene, rng) for _ in range(12)}
        while len(drawn) < 3:
            drawn.add(_changed(scene, rng))
        pool = sorted(drawn)
    elif category == 2:
        right = digits[i].number
    elif category == 3:
        right, pool = digits[i].colour, tuple(COLOURS)
    elif category == 4:
        right, pool = digits[i].place, PLACES
    elif category == 5:
        about, right, pool = everything, NUMBERS[len(digits)], NUMBERS[1:5]
    elif category in (6, 7):
        i, j, side = _pick(rng, _neighbours(digits))
        about = (i, j)
        if category == 6:
            words |= {"colour": digits[i].colour, "other": digits[j].colour}
            right, pool = _SIDES[side] + " it", tuple(side + " it" for side in _SIDES)
        else:
            words |= {"colour": digits[j].colour, "side": _SIDES[side]}
            right = digits[i].number
    elif category == 8:
        best = max(everything, key=lambda k: digits[k].label)
        about, right, pool = everything, digits[best].colour, tuple(COLOURS)
    else:
        rows = [r for r in (0, 1) if sum(d.cell // 2 == r for d in digits) == 2]
        r = _pick(rng, rows)
        about = tuple(k for k in everything if digits[k].cell // 2 == r)
        first, second = (digits[k].number for k in about)
        words["row"] = _ROWS[r]
        right = f"{first} {second}"
        others = [_pick(rng, NUMBERS) for _ in range(6)]
        drawn = {f"{second} {first}", *(f"{first} {o}" for o in others[:3]), *(f"{o} {second}" for o in others[3:])}
        while len(drawn - {right}) < 3:
            drawn.add(f"{_pick(rng, NUMBERS)} {second}")
        pool = sorted(drawn)
    wrong = [option for option in pool if option != right]
    options = [wrong[k] for k in rng.permutation(len(wrong))[:3]]
    options.insert(answer, right)
    return Choice(category, _CHOICES[category].format(**words), tuple(options), answer, about)


def naming_its_answer(choice: Choice) -> Choice:
    """The same options under a question that says which of them it wants."""
    return replace(choice, text=f"Which option is {choice.options[choice.answer]}?")
