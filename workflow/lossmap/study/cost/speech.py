"""What it costs to ask models: captions, answers, choices."""

from lossmap.data.counts import Count
from lossmap.study.cost.models import LanguageCost
from lossmap.study.cost.rates import Rates
from lossmap.study.cost.work import SPEECH, Work
from lossmap.vlm.prompts import ANSWER_TOKENS, caption_prompt

# Of the chat template and the question, about; the image's come on top.
PROMPT_TOKENS = 64
SPEAKERS = {"captions": "caption_images", "answers": "answer_questions", "choices": "choose_options"}  # task -> rule


def speaks(config: dict) -> list[tuple[str, str]]:
    """Task and dataset of everything that models are asked."""
    return [(task, dataset) for task in SPEAKERS for dataset in config[task]["datasets"]]


def plan_speech(
    config: dict, counts: dict[str, Count], name: str, model_type: str, language: LanguageCost, rates: Rates
) -> list[Work]:
    """Captions, answers and choices, of those datasets whose numbers are known. language: of prompts as long as
    PROMPT_TOKENS says."""
    batch, dtype = config["generation"]["batch_size"], config["generation"]["compute_dtype"]
    # To say a token, all weights and caches are read once for the whole batch.
    step = max(
        rates.seconds(batch * language.token_flops, dtype),
        (language.weights + batch * language.cache) / rates.bandwidth,
    )
    jobs, flops, seconds, memory = dict[str, int](), 0.0, 0.0, 0.0
    for task, dataset in speaks(config):
        prompts = counts[dataset].images if task == "captions" else counts[dataset].questions
        if prompts is None:
            continue
        said = new_tokens(config, task, model_type)
        jobs[SPEAKERS[task]] = jobs.get(SPEAKERS[task], 0) + 1
        flops += prompts * (language.prompt_flops + (said - 1) * language.token_flops)
        seconds += rates.seconds(prompts * language.prompt_flops, dtype) + -(-prompts // batch) * (said - 1) * step
        memory = max(memory, language.weights + batch * (language.activations + said * language.token_cache))
    return [Work(SPEECH, name, jobs=jobs, flops=flops, seconds=seconds, memory=memory)] if jobs else []


def new_tokens(config: dict, task: str, model_type: str) -> int:
    """The most tokens that a model may say."""
    if task == "choices":
        return 1
    usual = ANSWER_TOKENS if task == "answers" else caption_prompt(config[task]["prompts"], model_type)[1]
    return config[task].get("max_new_tokens") or usual
