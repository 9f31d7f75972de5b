"""Post embeddings -> a caption of each image."""

from pathlib import Path

from lossmap.study.predictions import open_asked, predict, say
from lossmap.study.specs import CaptionImages
from lossmap.vlm.prompts import caption_prompt


def run(*, embeddings: Path, captions: Path, spec: CaptionImages, threads: int = 1) -> None:
    """Let a model describe every image of a store, greedily, from the stored embeddings.

    spec: checkpoint, revision, image_size, compute_dtype, batch_size, prompts ("default" or "paper"), max_new_tokens
    (null: as many as the prompt's wording has). Runs on the GPU where there is one (CUDA_VISIBLE_DEVICES= hides it).
    The vision tower is never loaded. A run that was killed goes on where it stopped.
    """
    model = open_asked(embeddings, spec, "caption_images", "captions", threads)
    prompt, tokens = caption_prompt(spec.prompts, model.language.model_type)
    asked = [{"image_id": image, "prompt": prompt} for image in model.store["image_id"].values.tolist()]
    predict("captions", asked, model, say(model.language, spec.max_new_tokens or tokens), captions, spec.batch_size)
