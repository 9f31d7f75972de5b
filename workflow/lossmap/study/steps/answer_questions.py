"""Post embeddings, questions -> a short answer to each question."""

from pathlib import Path

from lossmap.data.manifest import read_table
from lossmap.errors import LossmapError
from lossmap.study.predictions import open_asked, predict, say
from lossmap.study.specs import AnswerQuestions
from lossmap.vlm.prompts import ANSWER_TOKENS, answer_prompt


def run(*, embeddings: Path, questions: Path, answers: Path, spec: AnswerQuestions, threads: int = 1) -> None:
    """Let a model answer every question of a dataset in its own words, greedily, from the stored embeddings.

    spec: checkpoint, revision, image_size, compute_dtype, batch_size, max_new_tokens (null: 32). Options, where a
    question has them, are not told. Runs on the GPU where there is one (CUDA_VISIBLE_DEVICES= hides it). The vision
    tower is never loaded. A run that was killed goes on where it stopped.
    """
    table = read_table(questions, "questions")
    if table.empty:
        raise LossmapError(f"{questions}: holds no questions. Leave this dataset out of answers.")
    asked = [
        {"question_id": row.question_id, "image_id": row.image_id, "prompt": answer_prompt(row.question)}
        for row in table.itertuples()
    ]
    model = open_asked(embeddings, spec, "answer_questions", "answers", threads)
    tokens = spec.max_new_tokens or ANSWER_TOKENS
    predict("answers", asked, model, say(model.language, tokens), answers, spec.batch_size)
