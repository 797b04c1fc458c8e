"""A character-level GPT, and the text it reads: sentences of a small grammar, drawn with a seed.

A verb agrees with its subject, which may stand a clause before it: "the old dogs that the cat sees sleep."
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

NOUNS = ("dog", "cat", "bird", "teacher", "child", "farmer", "painter", "horse")
MANY = {"child": "children"}
VERBS = ("see", "like", "follow", "help", "watch")
ALONE = ("sleep", "run", "sing", "wait")
ADJECTIVES = ("old", "small", "quiet", "happy")
CHARACTERS = sorted(set("".join([*NOUNS, *MANY.values(), *VERBS, *ALONE, *ADJECTIVES, "the that s .\n"])))


def load(context, sentences):
    """Return windows of `context` characters; the target at each place is the character after it."""
    draw = np.random.default_rng(0)
    splits = {"train": sentences, "test": sentences // 4}
    texts = {split: "".join(f"{sentence(draw)}.\n" for _ in range(count)) for split, count in splits.items()}
    return {**{split: windows(text, context) for split, text in texts.items()}, "classes": CHARACTERS}


def windows(text, context):
    numbers = np.array([CHARACTERS.index(character) for character in text])
    count = (len(numbers) - 1) // context
    inputs, targets = (numbers[begin : begin + count * context].reshape(count, context) for begin in (0, 1))
    return inputs, targets


def sentence(draw):
    subject, is_one = noun_phrase(draw)
    if draw.random() < 0.5:
        other, other_is_one = noun_phrase(draw)
        subject += f" that {other} {verb(draw.choice(VERBS), other_is_one)}"
    if draw.random() < 0.4:
        return f"{subject} {verb(draw.choice(ALONE), is_one)}"
    return f"{subject} {verb(draw.choice(VERBS), is_one)} {noun_phrase(draw)[0]}"


def noun_phrase(draw):
    noun, is_one = draw.choice(NOUNS), draw.random() < 0.5
    adjective = f"{draw.choice(ADJECTIVES)} " if draw.random() < 0.4 else ""
    return f"the {adjective}{noun if is_one else MANY.get(noun, noun + 's')}", is_one


def verb(stem, is_one):
    ending = "es" if stem.endswith("ch") else "s"
    return stem + ending if is_one else stem


def build(width, layers, heads, position, tied, norm, data_shape):
    return GPT(len(data_shape.classes), data_shape.input_shape[0], width, layers, heads, position, tied, norm)


class GPT(nn.Module):
    def __init__(self, vocabulary, context, width, layers, heads, position, tied, norm):
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.token.weight, std=0.02)
        self.position = nn.Parameter(0.02 * torch.randn(context, width)) if position == "learned" else None
        self.blocks = nn.Sequential(*(Block(width, heads, norm) for _ in range(layers)))
        self.norm = nn.LayerNorm(width) if norm == "pre" else nn.Identity()  # the last block ends with one otherwise
        self.head = nn.Linear(width, vocabulary, bias=False)
        if tied:
            self.head.weight = self.token.weight

    def forward(self, characters):
        features = self.token(characters)  # (B, T, width)
        if self.position is not None:
            features = features + self.position
        return self.head(self.norm(self.blocks(features)))


class Block(nn.Module):
    def __init__(self, width, heads, norm):
        super().__init__()
        self.heads, self.is_pre = heads, norm == "pre"
        self.queries_keys_values, self.projection = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, features):
        if self.is_pre:
            features = features + self.attend(self.norm1(features))
            return features + self.mlp(self.norm2(features))
        features = self.norm1(features + self.attend(features))
        return self.norm2(features + self.mlp(features))

    def attend(self, features):
        parts = self.queries_keys_values(features).chunk(3, dim=-1)
        queries, keys, values = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        mixed = functional.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        return self.projection(mixed.transpose(1, 2).flatten(2))
