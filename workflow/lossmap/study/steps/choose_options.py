"""Post embeddings, questions with options -> the probability of each option, and the likeliest."""

from pathlib import Path

import numpy as np

from lossmap.data.manifest import read_table
from lossmap.errors import LossmapError
from lossmap.study.predictions import open_asked, predict
from lossmap.study.specs import ChooseOptions
from lossmap.vlm.choices import letter_log_probabilities
from lossmap.vlm.prompts import LETTERS, choice_prompt


def run(*, embeddings: Path, questions: Path, choices: Path, spec: ChooseOptions, threads: int = 1) -> None:
    """Let a model choose among each question's options: the one whose letter is the likeliest answer, the first of
    equals.

    spec: checkpoint, revision, image_size, compute_dtype, batch_size. Runs on the GPU where there is one
    (CUDA_VISIBLE_DEVICES= hides it). The vision tower is never loaded. A run that was killed goes on where it stopped.
    """
    table = read_table(questions, "questions")
    if table.empty:
        raise LossmapError(f"{questions}: holds no questions. Leave this dataset out of choices.")
    counts = [len(options or []) for options in table["options"]]
    problems = [
        f"question {question}: {count} options"
        for question, count in zip(table["question_id"], counts, strict=True)
        if not 2 <= count <= len(LETTERS)
    ]
    if problems:
        raise LossmapError.listing(
            f"{questions}: {len(problems)} of {len(table)} questions can't be asked as multiple choice, which takes 2"
            f" to {len(LETTERS)} options:",
            problems,
            "Correct the annotations, or leave this dataset out of choices.",
        )
    asked = [
        {
            "question_id": row.question_id,
            "image_id": row.image_id,
            "prompt": choice_prompt(row.question, row.options),
            "options": len(row.options),
        }
        for row in table.itertuples()
    ]
    model = open_asked(embeddings, spec, "choose_options", "choices", threads)

    def choose(batch, post, size):
        prompts, options = [entry["prompt"] for entry in batch], [entry["options"] for entry in batch]
        scores = letter_log_probabilities(model.language, prompts, post, options, size)
        return [
            {"log_probabilities": row, "choice": int(np.argmax(row)), "revision": model.language.revision}
            for row in scores
        ]

    predict("choices", asked, model, choose, choices, spec.batch_size)
