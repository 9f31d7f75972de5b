"""The language side of a vision-language model, fed with stored embeddings: no image, no vision tower, no connector."""

import hashlib
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image
from transformers import AutoConfig, GenerationConfig, LogitsProcessor, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

from lossmap.errors import LossmapError
from lossmap.vlm.adapters import ADAPTER_WEIGHTS, Adapter
from lossmap.vlm.checkpoint_check import language_problems
from lossmap.vlm.checkpoints import adapter_of, resolve_checkpoint, weight_files
from lossmap.vlm.families import Family, is_vision_key, read_family
from lossmap.vlm.foreign_formats import ADAPTER
from lossmap.vlm.loading import check_loaded, placed, precision_of, quiet, reduced
from lossmap.vlm.merging import merge_adapter
from lossmap.vlm.preprocessing import Preprocessor, load_preprocessor
from lossmap.vlm.processors import load_processor
from lossmap.vlm.receives import ALL, receives_problem
from lossmap.vlm.tiled import TiledPreprocessor
from lossmap.vlm.view_limits import SQUARE, View

# What transformers concatenates is a list with a tensor for each image; these families want one tensor.
ONE_TENSOR = ("paligemma", "gemma3", "aya_vision", "internvl", "vipllava", "deepseek_vl", "janus", "ovis2")
# What the language model takes of a processor's outputs. The rest is about pixels.
TEXT_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids", "image_grid_thw")


class OnlyNumbers(LogitsProcessor):
    """Stops generation where the model's output is not a number: the likeliest token would be an arbitrary one."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if scores.isnan().any():
            raise LossmapError(
                "The language model put out NaN: it overflowed, or its weights are damaged. Against overflow, set"
                " compute_dtype: bfloat16 or float32."
            )
        return scores


class LanguageSide:
    """A language model and its prompts, ready to speak about images that it knows by their post embeddings alone.

    model_type, family: what the checkpoint is.  device, dtype: of the weights.
    revision: which checkpoint it is: a hub checkpoint's commit; for a folder "sha256:" and the digest of its files:
        weights, tokenizer, chat template and settings.  unknown: the token of what the tokenizer doesn't know, or None.
    """

    def __init__(self, model_type, family, model, processor, preprocessor, revision):
        self.model_type: str = model_type
        self.family: Family = family
        self.model: PreTrainedModel = model
        self.processor: Any = processor
        self.revision: str = revision
        self.device: torch.device = model.device
        self.dtype: torch.dtype = model.dtype
        self.unknown: int | None = processor.tokenizer.unk_token_id
        self.preprocessor: Preprocessor | TiledPreprocessor = preprocessor
        own = model.generation_config
        # The likeliest token and nothing else that the checkpoint may ask for, as Qwen's does for a penalty.
        model.generation_config = GenerationConfig(
            do_sample=False,
            repetition_penalty=1.0,
            bos_token_id=own.bos_token_id,
            eos_token_id=own.eos_token_id,
            pad_token_id=processor.tokenizer.pad_token_id,
        )
        ends = own.eos_token_id if isinstance(own.eos_token_id, list) else [own.eos_token_id]
        self._ends = set(ends) - {None}

    def chat(self, prompt: str, answer: str | None = None) -> str:
        """The text of one turn: an image and a prompt, as the model's chat template has it, up to where the answer
        begins, or with an answer. A checkpoint without a template gets the image, then the prompt."""
        if self.processor.chat_template is None:
            return self.processor.image_token + prompt + (answer or "")
        turns = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}]
        if answer is not None:
            turns.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
        return self.processor.apply_chat_template(turns, add_generation_prompt=answer is None, tokenize=False)

    def encode(
        self, prompts: list[str], image_tokens: int, size: tuple[int, int] | None = None
    ) -> dict[str, torch.Tensor]:
        """Prompts as left-padded batch, each with room for an image, as the model's own processor lays it out.

        The processor is shown a plain image: what it makes of the text doesn't depend on what an image shows.

        Parameters: prompts (n,); image_tokens, how many vectors stand for an image in post; size, width and height of
            one of the images, which are alike, where they are seen in views.
        Returns: input_ids, attention_mask (n, length), and what else the family's language model takes, on the device.
        Raises: LossmapError if a prompt names an image itself, or the processor leaves room for another number of
            vectors.
        """
        distinct = list(dict.fromkeys(prompts))
        texts = [self.chat(prompt) for prompt in distinct]
        for prompt, text in zip(distinct, texts, strict=True):
            if (found := text.count(self.processor.image_token)) != 1:
                raise LossmapError(
                    f"The prompt {prompt!r} becomes a text with {found} places for an image, marked"
                    f" {self.processor.image_token}; wanted one. Take the mark out of the question; if it holds none,"
                    " the checkpoint's chat template is at fault."
                )
        picture, asked = self._shown(size)
        inputs = self.processor(
            images=[[picture]] * len(texts),
            text=texts,
            images_kwargs=asked,
            padding=True,
            return_tensors="pt",
            # As transformers does where it tokenises a chat: no second token for the beginning.
            add_special_tokens=not self._begun(texts[0]),
        )
        is_image = inputs["input_ids"] == self.model.config.image_token_id
        found = is_image.sum(1)
        if isinstance(self.preprocessor, Preprocessor) and self.family.view == "base" and (found >= image_tokens).all():
            # The processor leaves room for tiles too, after the whole view, which alone is in post.
            kept = ~is_image | (is_image.cumsum(1) <= image_tokens)
            lengths = inputs["input_ids"].shape
            for name, values in inputs.items():
                if name in TEXT_INPUTS and values.shape == lengths:
                    inputs[name] = values[kept].view(len(texts), -1)
        elif (found != image_tokens).any():
            raise LossmapError(
                f"{self.model_type}: its processor leaves room for {found[0]} vectors per image, the embeddings have"
                f" {image_tokens}. They were made by another model, or with another image_size: extract them again."
            )
        row = {prompt: i for i, prompt in enumerate(distinct)}
        rows = torch.tensor([row[prompt] for prompt in prompts])
        return {name: inputs[name][rows].to(self.device) for name in TEXT_INPUTS if name in inputs}

    def _shown(self, size: tuple[int, int] | None) -> tuple[Image.Image, dict[str, Any]]:
        """The plain image that the processor is shown, and what it is asked for."""
        if isinstance(self.preprocessor, Preprocessor):
            height, width = self.preprocessor.input_size
            as_it_is = {"do_resize": False} if self.family.own_view == "budget" else {}
            return Image.new("RGB", (width, height), (127, 127, 127)), as_it_is
        if size is None:
            raise LossmapError(f"{self.model_type}: its images are seen in views. Give the size of these images.")
        return Image.new("RGB", size, (127, 127, 127)), self.preprocessor.tiling.asked()

    def image(self, post: torch.Tensor) -> dict[str, BaseModelOutputWithPooling]:
        """post (n, tokens, features) as the argument `mm_encoder_outputs` of the model.

        Raises: LossmapError if post isn't all that a language model with DeepStack receives.
        """
        further = len(self.family.further(self.model.config))
        words = cast(Any, self.model.get_input_embeddings()).weight
        width = (1 + further) * words.shape[1]
        if further and post.shape[-1] != width:
            raise LossmapError(
                f"{self.model_type}: its language model is given {width} features of a token, with those of DeepStack;"
                f" these embeddings have {post.shape[-1]}. They were made with receives: sequence, or by another model:"
                " set the model's receives to all, and extract them again."
            )
        sequence, *stacked = post.to(self.device, self.dtype).chunk(1 + further, dim=-1)
        each: Any = sequence if self.model_type in ONE_TENSOR else list(sequence)
        image = BaseModelOutputWithPooling(pooler_output=each)
        if self.family.stacked:
            cast(Any, image).deepstack_features = [list(features) for features in stacked]
        if self.family.beside:
            for name, values in self.family.beside(cast(Any, self.model).model).items():
                setattr(image, name, values)
        return {"image": image}

    def generate(
        self, prompts: list[str], post: torch.Tensor, max_new_tokens: int, size: tuple[int, int] | None = None
    ) -> list[list[int]]:
        """What the model says, greedily: at each step the likeliest token.

        Parameters: prompts (n,); post (n, tokens, features), the embeddings of the image of each prompt;
            max_new_tokens, the most tokens of one text; size, see `encode`.
        Returns: n lists of token ids. A text ends with a token that means so, unless it was cut off at max_new_tokens.
        Raises: LossmapError as `encode`, and if the model puts out NaN.
        """
        inputs = self.encode(prompts, post.shape[1], size)
        made = self._generate(inputs, mm_encoder_outputs=self.image(post), max_new_tokens=max_new_tokens)
        return [self._until_end(row) for row in made[:, inputs["input_ids"].shape[1] :].tolist()]

    def next_token(self, inputs: dict[str, torch.Tensor], **more) -> tuple[torch.Tensor, Any]:
        """Log-probabilities of the next token, and the cache of everything before it.

        Parameters: inputs, from `encode`; more, mm_encoder_outputs for a prompt, past_key_values to go on.
        Returns: (n, vocabulary) float32; the key-value cache.
        Raises: LossmapError if the model puts out NaN.
        """
        made = self._generate(inputs, **more, max_new_tokens=1, return_dict_in_generate=True, output_logits=True)
        return made.logits[0].float().log_softmax(-1), made.past_key_values

    def decode(self, tokens: list[list[int]]) -> list[str]:
        """Texts of token ids, without special tokens and without blanks around them; "" where there is no other."""
        return [text.strip() for text in self.processor.tokenizer.batch_decode(tokens, skip_special_tokens=True)]

    def tokens(self, text: str) -> list[int]:
        """Token ids of a text from `chat`, the image's place unexpanded."""
        return self.processor.tokenizer(text, add_special_tokens=not self._begun(text))["input_ids"]

    @torch.inference_mode()
    def _generate(self, inputs: dict[str, torch.Tensor], **how) -> Any:
        return cast(Any, self.model).generate(**inputs, **how, logits_processor=[OnlyNumbers()])

    def _begun(self, text: str) -> bool:
        begin = self.processor.tokenizer.bos_token
        return begin is not None and text.startswith(begin)

    def _until_end(self, tokens: list[int]) -> list[int]:
        end = next((i for i, token in enumerate(tokens) if token in self._ends), len(tokens))
        return tokens[: end + 1]


def load_language_side(
    checkpoint: str | Path,
    revision: str | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    image_size: int | None = None,
    view: View = SQUARE,
    receives: str = ALL,
) -> LanguageSide:
    """Load a model's language model and tokenizer. Its vision tower and connector are neither built nor read.

    Parameters: as `load_vision_side`.
    Raises: LossmapError if the checkpoint can't be had, is of no known family or of one that can't speak from post
        alone, or lacks weights of the language model or files of the processor.
    """
    precision = precision_of(dtype)
    folder = resolve_checkpoint(checkpoint, revision, vision_only=False)
    model_type, family = read_family(folder)
    if problem := receives_problem(str(checkpoint), family, receives):
        raise LossmapError(problem)
    for problem in language_problems(folder, model_type, receives):
        raise LossmapError(problem)
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    whole = cast("type[PreTrainedModel]", MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(config)])
    with quiet():
        model, info = cast(Any, reduced(whole, lambda model: _drop_vision(model, family))).from_pretrained(
            folder,
            config=config,
            dtype=precision,
            local_files_only=True,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # reported below, with the checkpoint's name
            output_loading_info=True,
        )
    check_loaded(checkpoint, "language", info)
    adapter = adapter_of(checkpoint)
    if adapter is not None:
        merge_adapter(model, adapter, config, lambda name: not is_vision_key(family, name, family.spoken))
    preprocessor = load_preprocessor(folder, image_size=image_size, view=view)
    processor = _processor(folder, preprocessor)
    made = placed(model, device)
    return LanguageSide(model_type, family, made, processor, preprocessor, revision or _digest(folder, adapter))


def _drop_vision(model: PreTrainedModel, family: Family) -> None:
    for name in family.vision_keys:
        if name.endswith(".") and name not in family.spoken:  # a module; transformers wants the single `image_newline`
            setattr(model.model, name.removesuffix("."), None)


def _processor(folder: Path, preprocessor: Preprocessor | TiledPreprocessor) -> Any:
    """The checkpoint's processor for images as they are seen, padding on the left."""
    try:
        processor = load_processor(folder)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise LossmapError(
            f"{folder}: its processor can't be loaded, so the model can't be asked ({' '.join(str(error).split())})."
            " Add the tokenizer's files where they are missing; otherwise leave this model out of captions, answers and"
            " choices."
        ) from None
    processor.tokenizer.padding_side = "left"
    if processor.tokenizer.pad_token is None:
        processor.tokenizer.pad_token = processor.tokenizer.eos_token
    if hasattr(processor.image_processor, "do_image_splitting"):  # which its own text depends on, too
        tiling = getattr(preprocessor, "tiling", None)
        processor.image_processor.do_image_splitting = bool(tiling and tiling.asked().get("do_image_splitting"))
    return processor


def _digest(folder: Path, adapter: Adapter | None) -> str:
    """Of the weights, the tokenizer, the chat template and the settings, and of an adapter's files: of all that what a
    model says depends on."""
    sha = hashlib.sha256()
    said = {path.name for ending in ("json", "jinja", "model", "txt") for path in folder.glob(f"*.{ending}")}
    files = [folder / name for name in sorted({*weight_files(folder, vision_only=False), *said})]
    files += [adapter.folder / name for name in (ADAPTER, ADAPTER_WEIGHTS)] if adapter else []
    for path in files:
        with path.open("rb") as file:
            sha.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return f"sha256:{sha.hexdigest()}"
