"""A decoder's `.tflite` and its tokenizer go in; the bundle that LiteRT-LM loads is written.

By the package litert-lm-builder. The model is called a generic one: texts without turns; a chat needs the template of
the model's makers.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from edgeopt import frameworks
from edgeopt.data.tokenizer import Tokenizer
from edgeopt.errors import ConfigError


def bundled(file: Path, tokenizer: Tokenizer, output: Path, *, cache: int) -> None:
    """Writes a `.litertlm` file.

    Args:
        file: with the signatures prefill and decode.
        tokenizer: of the model, from a file.
        output: where to write.
        cache: tokens that the file remembers.

    Raises:
        ConfigError: the tokenizer has no file.
        UnavailableError: litert-lm-builder is not installed.
    """
    if tokenizer.content is None:
        raise ConfigError(
            f"Expected a tokenizer's JSON file for the bundle, got {tokenizer.name}, which LiteRT-LM does not know. "
            "Try a tokenizer.json."
        )
    builder, metadata = frameworks.load("litert_lm_builder"), frameworks.load("litert_lm_metadata")
    said = metadata.LlmMetadata()
    said.max_num_tokens = cache
    said.llm_model_type.generic_model.SetInParent()
    for token in sorted(tokenizer.ends):
        said.stop_tokens.add().token_ids.ids.append(token)
    with tempfile.TemporaryDirectory(prefix="edgeopt-") as folder:
        words, facts = Path(folder) / "tokenizer.json", Path(folder) / "metadata.pb"
        words.write_bytes(tokenizer.content)
        facts.write_bytes(said.SerializeToString())
        work = builder.LitertLmFileBuilder()
        work.add_system_metadata(builder.Metadata(key="Authors", value="edgeopt", dtype=builder.DType.STRING))
        work.add_llm_metadata(str(facts))
        work.add_hf_tokenizer(str(words))
        work.add_tflite_model(str(file), builder.TfLiteModelType.PREFILL_DECODE)
        with output.open("wb") as stream:
            work.build(stream)
