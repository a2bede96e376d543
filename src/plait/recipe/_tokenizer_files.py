"""Vocabularies read from a model's folder, and the output's tokenizer written from an alignment.

Everything is done on tokenizer.json and tokenizer_config.json as JSON. A folder without tokenizer.json
(a SentencePiece model, a vocab.txt) goes through transformers, which makes one.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from plait.errors import InputError, MissingExtra
from plait.recipe._alignment import Alignment
from plait.recipe._document import quote
from plait.recipe._vocabulary import AddedToken, Vocabulary

#: Files that make up a tokenizer, besides chat templates.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
)
#: Where chat templates are found; they belong to the tokenizer whose tokens they use.
_CHAT_FILES = ("chat_template.jinja", "chat_template.json")
_MORE_CHATS = "additional_chat_templates"
_FLAGS = ("special", "normalized", "lstrip", "rstrip", "single_word")
#: A key of `added_tokens_decoder`.
_ROW = re.compile(r"[0-9]{1,9}")
#: Files that name the tokens as they were; with a changed vocabulary tokenizer.json alone is right.
_STALE = ("added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "tokenizer.model")


def read_vocabulary(folder: Path, rows: int | None = None) -> Vocabulary:
    """The vocabulary of the tokenizer in a model's folder.

    Args:
        folder: the folder.
        rows: rows of the model's embedding; None takes `vocab_size` from config.json, else all tokens'.

    Raises:
        InputError: there is no tokenizer, or its files are not what they should be.
    """
    path = folder / "tokenizer.json"
    if path.is_file():
        tokens, added = _from_json(_read_json(path), path)
        _add_configured(folder / "tokenizer_config.json", tokens, added)
    else:
        tokens, added = _from_transformers(folder)
    count = max(tokens.values(), default=-1) + 1
    return Vocabulary(tokens, rows or _config_rows(folder) or count, added, folder)


def write_tokenizer(alignment: Alignment, out: Path, *, chat_template: str | None = None) -> list[str]:
    """Write the output's tokenizer: the template's files, with the alignment's tokens.

    Tokenizer files and chat templates that are there already are another model's, and go.

    Args:
        alignment: what the tokens are.
        out: the output's folder.
        chat_template: Jinja text that replaces the template's.

    Returns:
        The names of the files written.

    Raises:
        InputError: the template's tokenizer can't take the new tokens, or gives them other ids.
    """
    folder = alignment.template.folder
    if folder is None:
        raise ValueError("the alignment's template has no folder to take the tokenizer's files from")
    for name in (*TOKENIZER_FILES, *_CHAT_FILES):
        (out / name).unlink(missing_ok=True)
    shutil.rmtree(out / _MORE_CHATS, ignore_errors=True)
    if (folder / _MORE_CHATS).is_dir():
        shutil.copytree(folder / _MORE_CHATS, out / _MORE_CHATS)
    kept = {name for name in (*TOKENIZER_FILES, *_CHAT_FILES) if (folder / name).is_file()}
    if alignment.tokens != alignment.template.tokens:
        kept -= set(_STALE)
        if "tokenizer.json" not in kept:
            _convert(folder, out)
        _rewrite(alignment, folder if "tokenizer.json" in kept else out, out)
        kept -= {"tokenizer.json"}
    for name in sorted(kept):
        shutil.copyfile(folder / name, out / name)
    if alignment.tokens != alignment.template.tokens:
        _rewrite_config(alignment, out / "tokenizer_config.json")
        _verify(alignment, out / "tokenizer.json")
    if chat_template is not None:
        write_chat_template(chat_template, out)
    return sorted(name for name in (*TOKENIZER_FILES, *_CHAT_FILES) if (out / name).is_file())


def write_chat_template(template: str, out: Path) -> None:
    """Write a chat template where transformers looks for it, and remove any other."""
    (out / "chat_template.jinja").write_text(template, encoding="utf-8")
    (out / "chat_template.json").unlink(missing_ok=True)
    path = out / "tokenizer_config.json"
    if path.is_file():
        config = _read_json(path)
        if config.pop("chat_template", None) is not None:
            _write_json(path, config)


def _from_json(data: Mapping[str, Any], path: Path) -> tuple[dict[str, int], dict[str, AddedToken]]:
    """Tokens and added tokens of a tokenizer.json; its model's vocabulary is a mapping or a list of pairs."""
    try:
        vocabulary = data["model"]["vocab"]
        if isinstance(vocabulary, list):
            vocabulary = {entry[0]: index for index, entry in enumerate(vocabulary)}
        added = {entry["content"]: (entry["id"], _added(entry)) for entry in data.get("added_tokens") or ()}
        tokens = {**vocabulary, **{token: row for token, (row, _) in added.items()}}
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise InputError(
            "this is not the file of a tokenizer that has a vocabulary", where=str(path)
        ) from error
    _check_text(tokens, path)
    wrong = [token for token, row in tokens.items() if type(row) is not int or row < 0]
    if wrong:
        raise InputError(f"the token {quote(wrong[0])} has no valid id", where=str(path))
    return tokens, {token: info for token, (_, info) in added.items()}


def _added(entry: Mapping[str, Any]) -> AddedToken:
    return AddedToken(**{flag: bool(entry.get(flag, flag == "normalized")) for flag in _FLAGS})


def _add_configured(path: Path, tokens: dict[str, int], added: dict[str, AddedToken]) -> None:
    """Tokens that only tokenizer_config.json adds; transformers adds them on loading."""
    decoder = _read_json(path).get("added_tokens_decoder") if path.is_file() else None
    if not isinstance(decoder, dict):
        return
    for row, entry in decoder.items():
        content = entry.get("content") if isinstance(entry, dict) else None
        if isinstance(content, str) and _ROW.fullmatch(row) and content not in tokens:
            tokens[content], added[content] = int(row), _added(entry)
    _check_text(tokens, path)


def _check_text(tokens: Iterable[str], path: Path) -> None:
    """Refuse a token that is no text, or half of a surrogate pair, which no file can hold."""
    try:
        "".join(tokens).encode("utf-8")
    except (TypeError, UnicodeError) as error:
        raise InputError("a token in it is no text", where=str(path)) from error


def _transformers(purpose: str) -> Any:
    try:
        import transformers
    except ImportError as error:
        raise MissingExtra("transformers", "hf", purpose) from error
    return transformers


def _load_slow(folder: Path) -> Any:
    transformers = _transformers("reading a tokenizer without tokenizer.json")
    try:
        # without the last word, transformers asks on the terminal whether to run a model's own code
        return transformers.AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # whatever a tokenizer's files make transformers raise
        reason = str(error).strip().partition("\n")[0][:200]
        raise InputError(f"no tokenizer can be loaded from it: {reason}", where=str(folder)) from error


def _from_transformers(folder: Path) -> tuple[dict[str, int], dict[str, AddedToken]]:
    tokenizer = _load_slow(folder)
    infos = tokenizer.added_tokens_decoder.values()
    added = {info.content: AddedToken(**{flag: getattr(info, flag) for flag in _FLAGS}) for info in infos}
    return dict(tokenizer.get_vocab()), added


def _convert(folder: Path, out: Path) -> None:
    tokenizer = _load_slow(folder)
    tokenizer.save_pretrained(str(out))
    if not (out / "tokenizer.json").is_file():
        raise InputError(
            "its tokenizer can't be written as tokenizer.json, so tokens can't be added", where=str(folder)
        )


def _config_rows(folder: Path) -> int | None:
    path = folder / "config.json"
    config = _read_json(path) if path.is_file() else {}
    inner = config.get("text_config") or config.get("llm_config")
    for place in (config, inner if isinstance(inner, dict) else {}):
        if type(place.get("vocab_size")) is int and place["vocab_size"] >= 0:
            return place["vocab_size"]
    return None


def _rewrite(alignment: Alignment, folder: Path, out: Path) -> None:
    """tokenizer.json with the alignment's new tokens added and those without a row removed."""
    data = _read_json(folder / "tokenizer.json")
    gone = alignment.template.tokens.keys() - alignment.tokens.keys()
    if gone:
        try:
            _remove(data, gone)
        except (TypeError, ValueError, AttributeError) as error:
            what = "its merges are not pairs of tokens"
            raise InputError(what, where=str(folder / "tokenizer.json")) from error
    entries = [entry for entry in data.get("added_tokens") or () if entry["content"] not in gone]
    present = {entry["content"] for entry in entries}
    new = {t: i for t, i in alignment.template.added.items() if t in alignment.tokens and t not in present}
    for token, info in {**new, **alignment.added}.items():
        flags = {flag: getattr(info, flag) for flag in _FLAGS}
        entries.append({"id": alignment.tokens[token], "content": token, **flags})
    data["added_tokens"] = sorted(entries, key=lambda entry: entry["id"])
    _write_json(out / "tokenizer.json", data)


def _remove(data: dict[str, Any], gone: set[str]) -> None:
    model = data["model"]
    if isinstance(model["vocab"], list):
        model["vocab"] = [entry for entry in model["vocab"] if entry[0] not in gone]
    else:
        model["vocab"] = {token: row for token, row in model["vocab"].items() if token not in gone}
    if "merges" in model:
        model["merges"] = [merge for merge in model["merges"] if not _makes(merge, gone)]


def _makes(merge: str | list[str], gone: set[str]) -> bool:
    """Whether a merge of two tokens takes or makes one that is gone."""
    left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
    return bool({left, right, left + right} & gone)


def _rewrite_config(alignment: Alignment, path: Path) -> None:
    """The copy of the added tokens in tokenizer_config.json, where there is one."""
    config = _read_json(path) if path.is_file() else {}
    decoder = config.get("added_tokens_decoder")
    if not isinstance(decoder, dict):
        return
    gone = alignment.template.tokens.keys() - alignment.tokens.keys()
    kept = {
        row: entry
        for row, entry in decoder.items()
        if not isinstance(entry, dict) or entry.get("content") not in gone
    }
    for token, info in alignment.added.items():
        flags = {flag: getattr(info, flag) for flag in _FLAGS}
        kept[str(alignment.tokens[token])] = {"content": token, **flags}
    _write_json(path, {**config, "added_tokens_decoder": kept})


def _verify(alignment: Alignment, path: Path) -> None:
    """The tokenizers library assigns ids by its own rules; they must be the alignment's."""
    try:
        import tokenizers
    except ImportError:
        return
    try:
        found = tokenizers.Tokenizer.from_file(str(path)).get_vocab(with_added_tokens=True)
    except Exception as error:  # the library raises bare Exception
        raise InputError(
            f"the tokenizer made from it can't be loaded: {error}", where=str(alignment.template.folder)
        ) from error
    for token, row in alignment.tokens.items():
        if found.get(token) != row:
            raise InputError(
                f"the tokenizer made gives {quote(token)} the id {found.get(token)}, but its row is {row}",
                where=str(alignment.template.folder),
                hint="the ids of this tokenizer have gaps; take another `source` for the tokenizer",
            )


def _read_json(path: Path) -> dict[str, Any]:
    from plait.checkpoint import read_json  # here, as it takes torch

    return read_json(path)


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    # half a surrogate pair is no text, and JSON has an escape for it
    text = json.dumps(data, ensure_ascii=False, indent=2) + "\n"
    path.write_text(text, encoding="utf-8", errors="backslashreplace")
