"""Text: a sentence encoder (all-MiniLM-L6-v2, 22.7 M parameters) tells languages, opinions and topics.

pip alone brings seven tasks (Django's messages in four families of languages, its docstrings, and rated
sentences about films and products), Debian four more (WordNet's nouns and verbs, `fortune`, Jane Austen).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from safetensors.torch import load_file
from torch import nn

from plait.errors import MissingExtra
from plait.tasks._find import find
from plait.tasks._gather import gather
from plait.tasks._suite import Suite
from plait.tasks._task import Task
from plait.tasks.suites import _django as django
from plait.tasks.suites import _english as english
from plait.tasks.suites._sources import MINILM
from plait.tasks.suites._texts import Item, text_task, words

WIDTH = 384
SIZES = {"train": 3000, "validation": 400, "test": 800, "calibration": 256, "adaptation": 400}


def load(data: str | Path | None = None, tasks: Sequence[str] | None = None) -> Suite:
    """The suite; see `plait.tasks.load_suite`."""
    tokenizer = words(find(MINILM, data))

    def task(name: str, items: Callable[[], Iterable[Item]], classes: Sequence[str], about: str) -> Task:
        made = partial(text_task, tokenizer=tokenizer, sizes=SIZES, width=WIDTH, about=about)
        return made(name, items(), classes)

    makers = {
        name: partial(
            task, name, partial(django.languages, family, data), family, f"Django's messages in {name}"
        )
        for name, family in django.FAMILIES.items()
    }
    about = "docstrings of Django, by the part they are from"
    makers["docstrings"] = partial(task, "docstrings", partial(django.docstrings, data), django.PARTS, about)
    for name, key in (("films", "movie"), ("products", "amazon")):
        about = f"rated sentences about {name} (Hutto & Gilbert 2014)"
        items = partial(english.opinions, key, data)
        makers[name] = partial(task, name, items, english.OPINIONS, about)
    for name, classes in (("noun", english.NOUNS), ("verb", english.VERBS)):
        about = f"WordNet 3.0's definitions of {name}s"
        items = partial(english.glosses, name, data)
        makers[f"{name}s"] = partial(task, f"{name}s", items, list(classes.values()), about)
    makers["quotations"] = partial(
        task, "quotations", partial(english.quotations, data), english.TOPICS, "sayings of `fortune`"
    )
    makers["novels"] = partial(
        task, "novels", partial(english.novels, data), english.NOVELS, "passages of Jane Austen's novels"
    )
    found = gather("text", makers, tasks)
    return Suite("text", base=partial(base, data), about=(__doc__ or "").strip(), **found)


def base(data: str | Path | None = None) -> nn.Module:
    """The encoder, in float32; without its pooler, which sentence encoders do not use."""
    try:
        from transformers import BertConfig, BertModel
    except ImportError as error:
        raise MissingExtra("transformers", "hf", "the text suite") from error
    folder = find(MINILM, data)
    model = BertModel(BertConfig.from_pretrained(folder), add_pooling_layer=False)
    state = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in state.items() if name in model.state_dict()}
    model.load_state_dict(kept)
    return model
