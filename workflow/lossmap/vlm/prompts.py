"""What a model is asked about an image. One wording for all models; the paper's captions differ by model."""

from string import ascii_uppercase

LETTERS = ascii_uppercase
ANSWER_TOKENS = 32
SHORT_ANSWER = "\nAnswer the question using a single word or phrase."
ANSWER_BY_LETTER = "\nAnswer with the option's letter from the given choices directly.\n"
CAPTION = ("Describe this image using one simple sentence.", 128)
PAPER_CAPTION = ("Describe this image using one simple sentences.", 128)  # sic
PAPER_CAPTION_QWEN = (
    "Describe this image using one simple sentence. Avoid explicit references to the image itself (e.g., 'This image"
    " shows...', 'Pictured here is...', 'In this photograph...').",
    50,
)


def caption_prompt(wording: str, model_type: str) -> tuple[str, int]:
    """The prompt of a caption and the most tokens that it may take.

    Parameters: wording, "default", the same for every model, or "paper", as the paper asked each model (Qwen models
        otherwise than LLaVA and Idefics2; a family that the paper lacks is asked as LLaVA); model_type, a key of
        FAMILIES.
    Raises: ValueError for another wording.
    Source: Li et al. 2025, arXiv:2509.11986, appendix; "sentences" is the paper's.
    """
    if wording not in ("default", "paper"):
        raise ValueError(f"wording is {wording!r}; wanted 'default' or 'paper'")
    if wording == "default":
        return CAPTION
    return PAPER_CAPTION_QWEN if model_type.startswith("qwen") else PAPER_CAPTION


def answer_prompt(question: str) -> str:
    """The prompt of an open question, to be answered in a word or two."""
    return question + SHORT_ANSWER


def choice_prompt(question: str, options: list[str]) -> str:
    """The prompt of a question with 2 to 26 options, to be answered by the letter of one.

    Raises: ValueError for another number of options.
    """
    if not 2 <= len(options) <= len(LETTERS):
        raise ValueError(f"there are {len(options)} options; wanted 2 to {len(LETTERS)}")
    lines = "".join(f"\n{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))
    return question + lines + ANSWER_BY_LETTER
